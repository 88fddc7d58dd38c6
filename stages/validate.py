"""Check the examples; report every problem at once, as `file:line: path: fact. remedy.`, or pass them on.

Reads:  data/epics.jsonl, data/epics_eval.jsonl, data/epic.schema.json, the base's special tokens
Writes: data/validated/{train,eval}.jsonl (the same bytes), reports/validate.json (what was counted)
Alone:  python -m stages.validate

Large files are cut into parts that processes share; nothing holds all rows at once.
"""

import json
import re
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.base_model import tokenizer_folder
from stages.shared.console import run_stage, say
from stages.shared.epic_schema import is_row, row_errors
from stages.shared.jsonl import Part, Problem, parse_line, parts, quick_object, strings
from stages.shared.near_duplicates import (
    HASHES,
    Match,
    candidates,
    closest_earlier,
    exceeds,
    shingles,
    signatures,
    similarity,
)
from stages.shared.params import ValidateParams, load_params

SOURCES = {"train": Path("data/epics.jsonl"), "eval": Path("data/epics_eval.jsonl")}
VALIDATED = Path("data/validated")
METRICS = Path("reports/validate.json")
ALL_PAIRS = 10_000  # up to so many rows every pair of inputs is compared; beyond, what MinHash points out
ROWS_AT_ONCE = 2_000
CONTROL_LIKE = re.compile(r"<\|[^|<>]*\|>")  # how ChatML and its relatives write control tokens
_UNSEEN = r"\s\u200b-\u200f\u2060\ufeff"
BLANK = re.compile(f"[{_UNSEEN}]*")
MAYBE_BLANK = re.compile(rf'"(?:[{_UNSEEN}]|\\[bfnrt]|\\u00[0-9a-f]{{2}})*"')  # in compact JSON

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Rows:
    """The sound rows of a stretch of a file, as numbers; the rows themselves stay on the disk."""

    lines: int = 0
    problems: list[Problem] = field(default_factory=list)
    offsets: "array[int]" = field(default_factory=lambda: array("q"))  # bytes from the start of the file
    numbers: "array[int]" = field(default_factory=lambda: array("q"))  # line numbers, from 1
    epic_ids: list[str] = field(default_factory=list)
    counts: "Counter[str]" = field(default_factory=Counter)

    def append(self, other: "Rows") -> None:
        """Add the stretch that follows this one in the file."""
        self.problems += [replace(problem, line=problem.line + self.lines) for problem in other.problems]
        self.numbers.extend(number + self.lines for number in other.numbers)
        self.lines += other.lines
        self.offsets += other.offsets
        self.epic_ids += other.epic_ids
        self.counts.update(other.counts)


def special_tokens(folder: Path) -> list[str]:
    """Every special token of a tokenizer, longest first; read as JSON, since transformers takes seconds to import."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise SystemExit(f"{file}: not found. Name a base with a fast tokenizer in params.yaml: base_model.train.")
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    return sorted((t["content"] for t in tokenizer["added_tokens"] if t["special"]), key=lambda t: (-len(t), t))


def text_problems(value: Any, tokens: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Path, fact and remedy for strings that are blank or that hold a control token."""
    for path, text in strings(value):
        if BLANK.fullmatch(text):
            yield path, "is blank", "Write it or remove it"
        found = next((token for token in tokens if token in text), None)
        look_alike = CONTROL_LIKE.search(text)
        if found or look_alike:
            token = found or look_alike[0]  # type: ignore[index]
            yield path, f"holds the control token {token}", "Write it in other words"


def plainly_fine(raw: bytes, tokens: Sequence[str]) -> dict[str, Any] | None:
    """The object of a line without any problem, or None if only `examine_line` can tell."""
    read = quick_object(raw)
    if read is None:
        return None
    value, text = read
    suspicious = "<|" in text or any(token in text for token in tokens) or MAYBE_BLANK.search(text)
    return None if suspicious or not is_row(value) else value


def examine_line(name: str, line: int, raw: bytes, tokens: Sequence[str]) -> dict[str, Any] | list[Problem]:
    """The object of a line, or everything that is wrong with the line by itself."""
    value = parse_line(name, line, raw)
    if isinstance(value, Problem):
        return [value]
    found = [Problem(name, line, *error) for error in (*row_errors(value), *text_problems(value, tokens))]
    return found or value


def examine(part: Part, name: str, tokens: Sequence[str]) -> Rows:
    """Check each line by itself; line numbers are counted from the part's start."""
    rows = Rows()
    # As they stand in compact JSON; the quotes of json.dumps are cut off.
    written = [json.dumps(token, ensure_ascii=False)[1:-1] for token in tokens if "<|" not in token]
    offset = part.start
    for raw in part.lines():
        rows.lines += 1
        value = plainly_fine(raw, written) or examine_line(name, rows.lines, raw, tokens)
        if isinstance(value, list):
            rows.problems += value
        else:
            rows.offsets.append(offset)
            rows.numbers.append(rows.lines)
            rows.epic_ids.append(value["output"]["epic_id"])
            rows.counts["context_words"] += len(value["input"]["context"].split())
            rows.counts["requirements"] += len(value["input"]["requerimientos"])
            rows.counts["acceptance_criteria"] += len(value["output"]["acceptance_criteria"])
        offset += len(raw) + 1
    return rows


def spread(function: Callable[[T], R], items: list[T]) -> Iterator[R]:
    """`map`, over as many processes as there are processors if there are several items."""
    if len(items) < 2:
        yield from map(function, items)
    else:
        with ProcessPoolExecutor() as pool:
            yield from pool.map(function, items)


@dataclass
class Corpus:
    """Both files, the training file first, and their sound rows, which are counted through.

    Attributes:
        files: where each split's rows are read from.
        rows: each split's sound rows and problems.

    """

    files: dict[str, Path]
    rows: dict[str, Rows]

    def __len__(self) -> int:
        return sum(len(rows.offsets) for rows in self.rows.values())

    def find(self, row: int) -> tuple[str, int]:
        """Split of a row and its index there."""
        train = len(self.rows["train"].offsets)
        return ("train", row) if row < train else ("eval", row - train)

    def problem(self, row: int, path: str, fact: str, remedy: str) -> Problem:
        """A problem of a row."""
        split, index = self.find(row)
        return Problem(str(SOURCES[split]), self.rows[split].numbers[index], path, fact, remedy)

    def name(self, row: int) -> str:
        """File and line of a row."""
        split, index = self.find(row)
        return f"{SOURCES[split]}:{self.rows[split].numbers[index]}"

    def stretches(self) -> list[tuple[Path, "array[int]"]]:
        """All rows as files and offsets, a few thousand at a time."""
        return [
            (self.files[split], rows.offsets[start : start + ROWS_AT_ONCE])
            for split, rows in self.rows.items()
            for start in range(0, len(rows.offsets), ROWS_AT_ONCE)
        ]

    def text(self, row: int) -> str:
        """A row's input text."""
        split, index = self.find(row)
        return next(input_texts((self.files[split], self.rows[split].offsets[index : index + 1])))


def copies(folder: Path) -> dict[str, Path]:
    """Both files copied into a folder: what is checked is what is passed on, whoever edits the sources meanwhile."""
    files = {split: folder / f"{split}.jsonl" for split in SOURCES}
    for split, source in SOURCES.items():
        if not source.is_file():
            raise SystemExit(f"{source}: not found. Restore it from Git.")
        shutil.copyfile(source, files[split])
    return files


def read_corpus(files: dict[str, Path], tokens: Sequence[str]) -> Corpus:
    """Check each line by itself."""
    corpus = Corpus(files, {})
    for split, file in files.items():
        name = str(SOURCES[split])
        rows = corpus.rows[split] = Rows()
        for part in spread(partial(examine, name=name, tokens=tokens), list(parts(file))):
            rows.append(part)
        if not rows.lines:
            rows.problems.append(Problem(name, 0, "", "is empty", "Put one example on each line"))
    return corpus


def repeated_ids(corpus: Corpus) -> Iterator[Problem]:
    """Rows whose epic_id an earlier row has."""
    ids = [name for rows in corpus.rows.values() for name in rows.epic_ids]
    first: dict[str, int] = {}
    free = 1 + max((int(digits) for name in ids if (digits := name.rpartition("-")[2]).isdecimal()), default=0)
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            fact = f"{name} is taken by {corpus.name(first[name])}"
            yield corpus.problem(row, "$.output.epic_id", fact, f"Give it another number, such as EPIC-{free:03d}")
            free += 1


def input_texts(stretch: tuple[Path, Iterable[int]]) -> Iterator[str]:
    """What two rows are compared by: the context and the requirements of each."""
    file, offsets = stretch
    with file.open("rb") as handle:
        for offset in offsets:
            handle.seek(offset)
            given = json.loads(handle.readline())["input"]
            yield " ".join([given["context"], *given["requerimientos"]])


def sketch(stretch: tuple[Path, Iterable[int]], words: int) -> Any:
    """MinHash signatures of some rows."""
    return signatures(input_texts(stretch), words)


def matches(corpus: Corpus, knobs: ValidateParams) -> Iterator[Match]:
    """Rows whose input is too alike to an earlier one's, each with the closest that was found."""
    if len(corpus) <= ALL_PAIRS:
        texts = (text for stretch in corpus.stretches() for text in input_texts(stretch))
        yield from closest_earlier([shingles(text, knobs.shingle_words) for text in texts], knobs.max_similarity)
        return
    import numpy as np

    made = np.empty((len(corpus), HASHES), np.uint32)
    end = 0
    for part in spread(partial(sketch, words=knobs.shingle_words), corpus.stretches()):
        made[end : end + len(part)] = part
        end += len(part)
    runs = lru_cache(4096)(lambda row: shingles(corpus.text(row), knobs.shingle_words))
    for row, pairs in groupby(candidates(made, knobs.max_similarity), key=itemgetter(0)):
        found = [Match(row, earlier, similarity(runs(row), runs(earlier))) for _, earlier in pairs]
        best = max(found, key=lambda match: match.similarity)
        if exceeds(best.similarity, knobs.max_similarity):
            yield best


def near_copies(corpus: Corpus, knobs: ValidateParams) -> Iterator[Problem]:
    """Rows whose input is the same or nearly the same as an earlier row's, in either file."""
    for row, earlier, likeness in matches(corpus, knobs):
        other = corpus.name(earlier)
        fact = f"has the same words as {other}"
        if likeness < 1:
            fact = f"is nearly that of {other} (similarity {likeness:.3f}, at most {knobs.max_similarity:g} is allowed)"
        if corpus.find(row)[0] != corpus.find(earlier)[0]:
            fact += ", and what is trained on cannot be held out"
        yield corpus.problem(row, "$.input", fact, "Remove one of the two, or rewrite it about another case")


def check(files: dict[str, Path], knobs: ValidateParams, tokens: Sequence[str]) -> tuple[Corpus, list[Problem]]:
    """Read both files; return their sound rows and every problem, by file and line."""
    corpus = read_corpus(files, tokens)
    problems = [problem for rows in corpus.rows.values() for problem in rows.problems]
    problems += [*repeated_ids(corpus), *near_copies(corpus, knobs)]
    order = [str(file) for file in SOURCES.values()]
    return corpus, sorted(problems, key=lambda problem: (order.index(problem.file), problem.line))


def statistics(rows: Rows) -> dict[str, Any]:
    """Small facts about a split."""
    n = len(rows.offsets)
    return {"examples": n} | {f"mean_{name}": round(total / n, 2) for name, total in rows.counts.items()}


def main() -> None:
    """Pass the examples on, or print every problem and exit 1 with nothing written."""
    params = load_params()
    base = params.base_model
    tokens = special_tokens(tokenizer_folder(base.train, base.train_revision, "base_model.train"))
    with atomic_folder(VALIDATED) as folder:
        corpus, problems = check(copies(folder), params.validate_, tokens)
        if problems:
            noun = "problem" if len(problems) == 1 else "problems"
            raise SystemExit(
                "\n".join([*map(str, problems), f"validate: {len(problems)} {noun}; nothing was written."])
            )
    found = {split: statistics(rows) for split, rows in corpus.rows.items()}
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    counts = " + ".join(str(found[split]["examples"]) for split in SOURCES)
    say(f"  {counts} examples, no problems")


if __name__ == "__main__":
    run_stage("validate", main, VALIDATED, METRICS)
