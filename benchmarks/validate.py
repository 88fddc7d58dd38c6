"""validate at scale, beside the straightforward way: json.loads and jsonschema, row by row, and every pair of inputs.

Run from the repository's root: python -m benchmarks.validate [--rows 1000000]

The rows are made here, 4 KB each: words drawn as often as data/epics.jsonl has them, some sentences of stock, and one
row in a thousand a copy of another with some words changed, so that the recall can be counted.
"""

import argparse
import json
import os
import platform
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
from jsonschema import Draft202012Validator

from stages import validate
from stages.shared.atomic import atomic_folder
from stages.shared.near_duplicates import closest_earlier, shingles, similarity
from stages.shared.params import ValidateParams

ROOT = Path(__file__).parents[1]
KNOBS = ValidateParams(shingle_words=3, max_similarity=0.5)
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
INPUT_WORDS, CONTEXT_WORDS, REQUIREMENT_WORDS = 200, 110, 15
STOCK, BATCH = 20_000, 1_000
SAMPLE = 5_000


def word_counts() -> Counter[str]:
    """The words of the examples of this repository."""
    rows = [json.loads(line) for line in (ROOT / "data/epics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Counter(word for row in rows for word in row["input"]["context"].split())


def made_rows(count: int) -> Iterator[tuple[bytes, tuple[int, float] | None]]:
    """Rows of about 4 KB; of a planted near-copy also the row that it copies and how alike the two are."""
    counts = word_counts()
    vocabulary = list(counts)
    share = np.array(list(counts.values())) / counts.total()
    draw, pick = np.random.default_rng(1), random.Random(1)

    def words(size: int) -> list[str]:
        return [vocabulary[index] for index in draw.choice(len(vocabulary), size, p=share)]

    text = words(STOCK * 14)
    stock = [" ".join(text[start : start + 14]) for start in range(0, len(text), 14)]
    kept: list[tuple[int, list[str]]] = []
    for number in range(count):
        if number % BATCH == 0:
            fresh = words(BATCH * INPUT_WORDS)
        start = number % BATCH * INPUT_WORDS
        own, planted = fresh[start : start + INPUT_WORDS], None
        own[:28] = " ".join(pick.choices(stock, k=2)).split()
        if number % 1_000 == 1:
            kept.append((number, own))
        elif number % 1_000 == 999:
            other, copied = pick.choice(kept)
            changed = list(copied)
            for place in pick.sample(range(INPUT_WORDS), pick.randrange(2, 24)):
                changed[place] = f"otra{number}"
            own, runs = changed, [shingles(" ".join(text), KNOBS.shingle_words) for text in (changed, copied)]
            planted = (other, similarity(*runs))
        tail = own[CONTEXT_WORDS:]
        sentences = pick.choices(stock, k=29)
        row = {
            "input": {
                "context": " ".join(own[:CONTEXT_WORDS]),
                "requerimientos": [
                    " ".join(tail[place : place + REQUIREMENT_WORDS])
                    for place in range(0, len(tail), REQUIREMENT_WORDS)
                ],
            },
            "output": {
                "epic_id": f"EPIC-{number:06d}",
                "title": sentences[0],
                "description": ". ".join(sentences[1:5]),
                "user_stories": sentences[5:9],
                "acceptance_criteria": sentences[9:18],
                "risks": sentences[18:24],
                "success_metrics": sentences[24:],
                "priority": "Alta",
            },
        }
        yield orjson.dumps(row) + b"\n", planted


class Memory(threading.Thread):
    """Watches this process and its children; `peak` is the most that they held together, in GiB (PSS on Linux)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0

    def run(self) -> None:
        """Look ten times a second."""
        this = psutil.Process()
        while True:
            held = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    info = process.memory_full_info()
                except psutil.Error:  # it has just ended
                    continue
                held += getattr(info, "pss", info.rss)
            self.peak = max(self.peak, held / 2**30)
            time.sleep(0.1)


@contextmanager
def timed(what: str, rows: int, memory: Memory) -> Iterator[None]:
    """Print a line of the table."""
    memory.peak = 0.0
    start = time.monotonic()
    yield
    seconds = time.monotonic() - start
    print(f"| {what} | {rows:,} | {seconds:.1f} | {rows / seconds:,.0f} | {memory.peak:.2f} |", flush=True)


def straightforward(file: Path) -> None:
    """What one would write first: one process, one row after the other."""
    validator = Draft202012Validator(json.loads((ROOT / "data/epic.schema.json").read_text(encoding="utf-8")))
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, SAMPLE), start=1):
            row = json.loads(line)
            errors = [*validator.iter_errors(row), *validate.text_problems(row, TOKENS)]
            assert not errors, (number, errors)


def first_inputs(file: Path) -> list[Any]:
    """The inputs of the first rows, as sets of shingles."""
    with file.open(encoding="utf-8") as lines:
        given = [json.loads(line)["input"] for line in islice(lines, SAMPLE)]
    return [shingles(" ".join([one["context"], *one["requerimientos"]]), KNOBS.shingle_words) for one in given]


def main() -> None:
    """Make the rows, check them both ways, print a table and the recall."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to make the rows (default: the system's temporary folder)")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    memory = Memory()
    memory.start()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.chdir(folder)
        Path("data").mkdir()
        shutil.copy(ROOT / "data/epic.schema.json", "data")
        files = validate.SOURCES
        planted = {}
        held_out = options.rows // 1_000
        with files["train"].open("wb") as train, files["eval"].open("wb") as held:
            for number, (line, copy) in enumerate(made_rows(options.rows)):
                (held if number >= options.rows - held_out else train).write(line)
                if copy and copy[1] > KNOBS.max_similarity:
                    planted[number] = copy
        size = sum(file.stat().st_size for file in files.values())
        print(f"{options.rows:,} rows, {size / 1e9:.2f} GB, {len(planted)} planted near-copies\n")
        print("| what | rows | seconds | rows/s | peak memory, GiB |")
        print("|---|---|---|---|---|")
        with timed("straightforward: all but near-duplicates", SAMPLE, memory):
            straightforward(files["train"])
        with timed("straightforward: every pair that shares a run", SAMPLE, memory):
            list(closest_earlier(first_inputs(files["train"]), KNOBS.max_similarity))
        os.sync()  # the rows that were made are not to be written on validate's time
        with (
            timed("validate: copy to data/validated", options.rows, memory),
            atomic_folder(validate.VALIDATED) as passed_on,
        ):
            validate.copies(passed_on)
        with timed("validate: all else but near-duplicates", options.rows, memory):
            corpus = validate.read_corpus({split: validate.VALIDATED / f"{split}.jsonl" for split in files}, TOKENS)
            problems = [*corpus.rows["train"].problems, *corpus.rows["eval"].problems]
            problems += validate.repeated_ids(corpus)
        with timed("validate: near-duplicates", options.rows, memory):
            found = {match.text: match for match in validate.matches(corpus, KNOBS)}
        assert not problems, problems[:3]
        recalled = sum(number in found for number in planted)
        print(f"\n{recalled} of {len(planted)} planted near-copies found; {len(found.keys() - planted)} others")
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
