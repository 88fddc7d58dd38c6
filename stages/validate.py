"""Check the examples; report every problem at once, as `file:line: path: fact. remedy.`, or pass them on.

Reads:  data/epics.jsonl, data/epics_eval.jsonl, data/epic.schema.json, the base's special tokens
Writes: data/validated/{train,eval}.jsonl (the same rows), reports/validate.json (what was counted)
Alone:  python -m stages.validate
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.base_model import tokenizer_folder
from stages.shared.console import say, size
from stages.shared.epic_schema import row_errors
from stages.shared.jsonl import Problem, read_jsonl, strings
from stages.shared.near_duplicates import shingles, similar_pairs
from stages.shared.params import ValidateParams, load_params

SOURCES = {"train": Path("data/epics.jsonl"), "eval": Path("data/epics_eval.jsonl")}
VALIDATED = Path("data/validated")
METRICS = Path("reports/validate.json")
CONTROL_LIKE = re.compile(r"<\|[^|<>]*\|>")  # how ChatML and its relatives write control tokens


@dataclass(frozen=True)
class Row:
    """One example and where it stands."""

    split: str
    line: int
    value: dict[str, Any]

    @property
    def file(self) -> str:
        """The file it stands in."""
        return str(SOURCES[self.split])

    def problem(self, path: str, fact: str, remedy: str) -> Problem:
        """A problem of this row."""
        return Problem(self.file, self.line, path, fact, remedy)


def special_tokens(folder: Path) -> list[str]:
    """Every special token of a tokenizer, longest first; read as JSON, since transformers takes seconds to import."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return sorted((t["content"] for t in tokenizer["added_tokens"] if t["special"]), key=lambda t: (-len(t), t))


def text_problems(row: Row, tokens: list[str]) -> Iterator[Problem]:
    """Strings that are blank or that hold a control token."""
    for path, text in strings(row.value):
        if not text.strip():
            yield row.problem(path, "is blank", "Write it or remove it")
        found = next((token for token in tokens if token in text), None)
        look_alike = CONTROL_LIKE.search(text)
        if found or look_alike:
            token = found or look_alike[0]  # type: ignore[index]
            yield row.problem(path, f"holds the control token {token}", "Write it in other words")


def row_problems(row: Row, tokens: list[str]) -> Iterator[Problem]:
    """Everything that is wrong with one row by itself."""
    for path, fact in row_errors(row.value):
        yield row.problem(path, fact, "See data/epic.schema.json")
    yield from text_problems(row, tokens)


def repeated_ids(rows: list[Row]) -> Iterator[Problem]:
    """Rows whose epic_id an earlier row has."""
    first: dict[str, Row] = {}
    numbers = [int(row.value["output"]["epic_id"].removeprefix("EPIC-")) for row in rows]
    free = max(numbers, default=0) + 1
    for row in rows:
        name = row.value["output"]["epic_id"]
        if name in first:
            other = first[name]
            fact = f"{name} is taken by {other.file}:{other.line}"
            yield row.problem("$.output.epic_id", fact, f"Give it another number, such as EPIC-{free:03d}")
        first.setdefault(name, row)


def input_text(row: Row) -> str:
    """What two rows are compared by."""
    given = row.value["input"]
    return " ".join([given["context"], *given["requerimientos"]])


def near_copies(rows: list[Row], knobs: ValidateParams) -> Iterator[Problem]:
    """Rows whose input is the same or nearly the same as an earlier row's, in either file."""
    sets = [shingles(input_text(row), knobs.shingle_words) for row in rows]
    for earlier, later, similarity in similar_pairs(sets, knobs.max_similarity):
        other = rows[earlier]
        same = input_text(other) == input_text(rows[later])
        likeness = "the same as" if same else f"{similarity:.0%} alike with"
        remedy = "Remove one of the two, or rewrite it about another case"
        yield rows[later].problem("$.input", f"is {likeness} {other.file}:{other.line}", remedy)


def check(knobs: ValidateParams, tokens: list[str]) -> tuple[list[Row], list[Problem]]:
    """Read both files; return the sound rows and every problem, by file and line."""
    rows: list[Row] = []
    problems: list[Problem] = []
    for split, file in SOURCES.items():
        for item in read_jsonl(file):
            if isinstance(item, Problem):
                problems.append(item)
                continue
            row = Row(split, *item)
            found = list(row_problems(row, tokens))
            problems.extend(found)
            if not found:
                rows.append(row)
    problems.extend(repeated_ids(rows))
    problems.extend(near_copies(rows, knobs))
    order = [str(file) for file in SOURCES.values()]
    return rows, sorted(problems, key=lambda problem: (order.index(problem.file), problem.line))


def statistics(rows: list[Row]) -> dict[str, Any]:
    """Small facts about each split."""

    def of(split: str) -> dict[str, float]:
        values = [row.value for row in rows if row.split == split]
        criteria = [len(value["output"]["acceptance_criteria"]) for value in values]
        requirements = [len(value["input"]["requerimientos"]) for value in values]
        words = [len(value["input"]["context"].split()) for value in values]
        n = len(values)
        return {
            "examples": n,
            "mean_context_words": round(sum(words) / n, 1),
            "mean_requirements": round(sum(requirements) / n, 2),
            "mean_acceptance_criteria": round(sum(criteria) / n, 2),
        }

    return {split: of(split) for split in SOURCES}


def main() -> None:
    """Write the validated rows, or print every problem and exit 1 with nothing written."""
    params = load_params()
    base = params.base_model
    tokens = special_tokens(tokenizer_folder(base.train, base.train_revision, "base_model.train"))
    rows, problems = check(params.validate_, tokens)
    if problems:
        noun = "problem" if len(problems) == 1 else "problems"
        raise SystemExit("\n".join([*map(str, problems), f"validate: {len(problems)} {noun}; nothing was written."]))
    with atomic_folder(VALIDATED) as folder:
        for split in SOURCES:
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(row.value, ensure_ascii=False) + "\n" for row in rows if row.split == split)
    found = statistics(rows)
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    counts = " + ".join(str(found[split]["examples"]) for split in SOURCES)
    say(f"validate: {counts} examples, no problems; {VALIDATED}: {size(VALIDATED)}")


if __name__ == "__main__":
    main()
