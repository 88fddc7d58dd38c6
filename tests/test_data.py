"""The data set itself: what data/README.md says of it is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stages.shared.epic_schema import output_fields

DATA = Path(__file__).parents[1] / "data"
README = (DATA / "README.md").read_text(encoding="utf-8")


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


TRAIN, EVAL = read("epics.jsonl"), read("epics_eval.jsonl")
ROWS = {row["output"]["epic_id"]: row for row in TRAIN + EVAL}


def stated(fact: str) -> list[str]:
    """The cells of a row of the statistics, without the counts in brackets."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {fact}"))
    return [re.sub(r" \(.*\)", "", cell.strip()) for cell in line.split("|")[2:-1]]


def counted(numbers: list[int]) -> str:
    return f"{min(numbers)} / {sum(numbers) / len(numbers):.1f} / {max(numbers)}"


def test_there_are_104_and_24_examples_numbered_through() -> None:
    assert (len(TRAIN), len(EVAL)) == (104, 24)
    assert list(ROWS) == [f"EPIC-{number:03d}" for number in range(1, 129)]


@pytest.mark.parametrize("name", ROWS)
def test_an_example_has_its_fields_in_order_and_within_their_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA.parent)
    given, epic = ROWS[name]["input"], ROWS[name]["output"]
    assert list(ROWS[name]) == ["input", "output"]
    assert list(given) == ["context", "requerimientos"]
    assert list(epic) == output_fields()
    assert 60 <= len(given["context"].split()) <= 180
    assert 4 <= len(given["requerimientos"]) <= 8
    assert 5 <= len(epic["acceptance_criteria"]) <= 10
    assert 5 <= len(epic["title"].split()) <= 14
    for field in ("user_stories", "out_of_scope", "dependencies", "risks", "success_metrics"):
        assert 2 <= len(epic[field]) <= 4
    for story in epic["user_stories"]:
        assert re.fullmatch(r"Como [^,].*, quiero .+ para .+", story), story
    with_number = [criterion for criterion in epic["acceptance_criteria"] if re.search(r"\d", criterion)]
    assert 2 * len(with_number) >= len(epic["acceptance_criteria"])


def test_no_criterion_story_or_risk_stands_in_two_epics() -> None:
    fields = ("acceptance_criteria", "user_stories", "risks", "out_of_scope", "success_metrics")
    texts = [text for row in ROWS.values() for field in fields for text in row["output"][field]]
    assert len(set(texts)) == len(texts)


def test_the_statistics_are_those_of_the_files() -> None:
    parts = (TRAIN, EVAL, TRAIN + EVAL)
    for fact, lengths in (
        ("Words of context", lambda row: len(row["input"]["context"].split())),
        ("Requirements per Epic", lambda row: len(row["input"]["requerimientos"])),
        ("Criteria per Epic", lambda row: len(row["output"]["acceptance_criteria"])),
    ):
        assert stated(fact) == [counted([lengths(row) for row in part]) for part in parts]
    criteria = [[text for row in part for text in row["output"]["acceptance_criteria"]] for part in parts]
    shares = [sum(bool(re.search(r"\d", text)) for text in texts) / len(texts) for texts in criteria]
    assert stated("Criteria with a digit") == [f"{share:.1%}".replace("%", " %") for share in shares]
    priorities = [[row["output"]["priority"] for row in part] for part in parts]
    assert stated("Priority Alta") == [
        " / ".join(str(found.count(name)) for name in ("Alta", "Media", "Baja")) for found in priorities
    ]


def test_the_counts_of_countries_registers_and_product_types_add_up() -> None:
    for heading in ("Countries", "Registers", r"Product types \(15\)"):
        (text,) = re.findall(rf"- \*\*{heading}:\*\* ([^.]+)\.", README)
        assert sum(map(int, re.findall(r" (\d+)(?=[,;\n]|$)", text))) == 128
    sectors = re.findall(r"(?m)^\| [^|]+ \| (\d+) \| ([a-z][^|]+) \|$", README)
    assert sum(int(count) for count, _ in sectors) == 128
    assert sum(len(names.split(", ")) for _, names in sectors) == 76
