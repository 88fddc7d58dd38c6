"""An endless, reproducible stream of synthetic Spanish conversations about software products.

Reads: the lexicons of this package; nothing of data/.
Run:   python -m tools.corpus.generate --seed 1 --count 6      prints a few
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Callable, Iterator

from tools.corpus import documents as d
from tools.corpus.industry import Industry
from tools.corpus.lexicon_a import INDUSTRIES as INDUSTRIES_A
from tools.corpus.lexicon_b import INDUSTRIES as INDUSTRIES_B
from tools.corpus.sentences import Vocabulary, World, polish, prepare

INDUSTRIES: tuple[Industry, ...] = (*INDUSTRIES_A, *INDUSTRIES_B)

# Kind -> how many of every thousand conversations. The long kinds come first.
KINDS: dict[str, int] = {
    "items_to_json": 85,
    "named_format": 60,
    "items_to_objects": 45,
    "items_to_markdown": 45,
    "by_example": 20,
    "decision_record": 12,
    "user_stories": 18,
    "mail_answer": 18,
    "brief_to_minutes": 15,
    "numbered_with_reasons": 20,
    "release_notes": 18,
    "roadmap": 15,
    "faq": 15,
    "comparison": 10,
    "interview_script": 10,
    "finish_list": 25,
    "scene": 20,
    "brief_to_summary": 30,
    "brief_questions": 25,
    "indexed_questions": 25,
    "rewriting": 75,
    "copying": 55,
    "random_copy": 40,
    "merge_lists": 12,
    "conversion": 25,
    "json_repair": 20,
    "json_edit": 20,
    "extraction": 25,
    "notes_to_tasks": 20,
    "ticket_triage": 12,
    "stakeholders": 8,
    "risk_register": 12,
    "glossary": 8,
    "data_dictionary": 8,
    "sla_table": 6,
    "checklists": 12,
    "kpi_plan": 8,
    "retrospective": 10,
    "planner": 6,
}


def writer(kind: str, vocabularies: tuple[Vocabulary, ...]) -> Callable[[random.Random], d.Document]:
    """The function that writes one conversation of a kind."""
    if kind == "by_example":
        return lambda rng: d.by_example(World(rng, vocabularies), World(rng, vocabularies))
    function: Callable[[World], d.Document] = getattr(d, kind)
    return lambda rng: function(World(rng, vocabularies))


def labelled(seed: int) -> Iterator[tuple[str, d.Document]]:
    """(kind, conversation), for ever; the same seed gives the same stream."""
    rng = random.Random(seed)
    vocabularies = tuple(map(prepare, INDUSTRIES))
    kinds = list(KINDS)
    writers = {kind: writer(kind, vocabularies) for kind in kinds}
    totals = list(itertools.accumulate(KINDS.values()))
    while True:
        kind = rng.choices(kinds, cum_weights=totals)[0]
        document = writers[kind](rng)
        yield kind, [{"role": m["role"], "content": polish(m["content"])} for m in document]


def conversations(seed: int) -> Iterator[list[dict[str, str]]]:
    """Conversations of {"role", "content"} messages, for ever; the same seed gives the same stream."""
    return (document for _, document in labelled(seed))


def main() -> None:
    """Print conversations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--kind", choices=list(KINDS), help="only this kind")
    arguments = parser.parse_args()
    chosen = (p for p in labelled(arguments.seed) if arguments.kind in (None, p[0]))
    for kind, document in itertools.islice(chosen, arguments.count):
        print(f"{'=' * 20} {kind}")
        for message in document:
            print(f"--- {message['role']}\n{message['content']}")


if __name__ == "__main__":
    main()
