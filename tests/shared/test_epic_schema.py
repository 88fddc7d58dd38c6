"""epic_schema: the real schema, and what is said of a broken one."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from stages.shared import epic_schema

ROOT = Path(__file__).parents[2]
EPIC = {"epic_id": "EPIC-001", "title": "Avisos", "acceptance_criteria": ["El aviso llega en 60 segundos."]}
INPUT = {"context": "Un hospital de 340 camas en Zaragoza.", "requerimientos": ["Avisar al equipo"]}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/epic.schema.json", tmp_path / "data")

    def forget() -> None:
        for cached in (epic_schema.schema, epic_schema._decides, epic_schema._explains):
            cached.cache_clear()

    forget()
    yield tmp_path
    forget()


def test_the_smallest_row_is_valid() -> None:
    assert list(epic_schema.row_errors({"input": INPUT, "output": EPIC})) == []
    assert epic_schema.output_errors(EPIC) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"epic_id": "EPIC-1"}, "$.epic_id"),
        ({"title": 5}, "$.title"),
        ({"title": "Ay"}, "$.title"),
        ({"acceptance_criteria": []}, "$.acceptance_criteria"),
        ({"acceptance_criteria": ["El aviso llega en 60 s.", "corto"]}, "$.acceptance_criteria[1]"),
        ({"risks": ["Que falle la red.", None]}, "$.risks[1]"),
        ({"priority": "Urgente"}, "$.priority"),
        ({"prioridad": "Alta"}, "$.prioridad"),
    ],
)
def test_what_the_schema_forbids_is_said_with_its_json_path(change: dict[str, Any], place: str) -> None:
    assert [error.split(": ")[0] for error in epic_schema.output_errors(EPIC | change)] == [place]
    found = epic_schema.row_errors({"input": INPUT, "output": EPIC | change})
    assert [path for path, _, _ in found] == [f"$.output{place[1:]}"]


@pytest.mark.parametrize("field", ["epic_id", "title", "acceptance_criteria"])
def test_a_required_field_is_missed(field: str) -> None:
    rest = {key: value for key, value in EPIC.items() if key != field}
    assert epic_schema.output_errors(rest) == [f'$: "{field}" is missing. Add it.']


def test_every_error_of_a_row_is_found_in_both_halves() -> None:
    row = {"input": INPUT | {"requerimientos": []}, "output": EPIC | {"title": 1, "priority": 2}, "more": 1}
    places = sorted(path for path, _, _ in epic_schema.row_errors(row))
    assert places == ["$.input.requerimientos", "$.more", "$.output.priority", "$.output.title"]


@pytest.mark.parametrize("row", [None, 3, "x", [1]])
def test_a_row_that_is_no_object_is_refused_at_its_root(row: object) -> None:
    assert [path for path, _, _ in epic_schema.row_errors(row)] == ["$"]


def test_the_fields_are_those_of_the_schema_in_their_order(project: Path) -> None:
    written = json.loads((project / "data/epic.schema.json").read_text(encoding="utf-8"))
    assert list(epic_schema.output_schema()["properties"])[:2] == ["epic_id", "title"]
    assert epic_schema.output_schema() == written["$defs"]["output"]


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"{\n", ":2: not JSON: "),
        (b'"\xff"', ": byte 2 is not UTF-8. "),
        (b'{"type": "objeto"}', ": $.type: not JSON Schema: "),
        (b'{"type": "object"}', ": $.$defs: has no input. "),
    ],
)
def test_a_broken_schema_is_one_line_that_names_the_file(project: Path, content: bytes, fact: str) -> None:
    (project / "data/epic.schema.json").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        epic_schema.output_errors(EPIC)
    assert str(stop.value).startswith(f"data/epic.schema.json{fact}")
    assert len(str(stop.value).splitlines()) == 1


def test_a_missing_schema_is_one_line_that_names_the_file(project: Path) -> None:
    (project / "data/epic.schema.json").unlink()
    with pytest.raises(SystemExit, match=r"^data/epic\.schema\.json: not found\. Restore it from Git\.$"):
        epic_schema.output_errors(EPIC)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"titel": "Avisos"}, '$.titel: there is no such field. Rename it to "title".'),
        ({"xyz": []}, "$.xyz: there is no such field. The fields here are epic_id, title, "),
        ({"risk": []}, '$.risk: there is no such field. Rename it to "risks".'),
        ({"risks": "uno"}, "$.risks: is a string, should be a list. Write it as data/README.md shows."),
        ({"title": None}, "$.title: is null, should be a string. "),
        ({"title": "Ay"}, "$.title: has 2 characters, should have at least 5. Say more."),
        ({"acceptance_criteria": []}, "$.acceptance_criteria: has 0 items, should have at least 1. Add to it."),
        ({"priority": "alta"}, '$.priority: "alta" is none of Alta, Media, Baja. Write "Alta".'),
        ({"priority": "Urgente"}, '$.priority: "Urgente" is none of Alta, Media, Baja. Write one of them.'),
    ],
)
def test_an_error_says_what_stands_there_and_how_to_mend_it(change: dict[str, Any], line: str) -> None:
    (error,) = epic_schema.output_errors(EPIC | change)
    assert error.startswith(line)


def test_a_line_break_after_an_epic_id_is_refused_although_python_s_dollar_lets_it_pass() -> None:
    (error,) = epic_schema.output_errors(EPIC | {"epic_id": "EPIC-001\n"})
    assert error.startswith("$.epic_id: ")
    assert "\n" not in error


WORDS = st.text(st.sampled_from("aé€😀 \u0301"), max_size=24)
ANYTHING = st.none() | st.integers() | WORDS | st.lists(WORDS | st.none(), max_size=2)
EPICS = st.fixed_dictionaries(
    {},
    optional={
        "epic_id": st.sampled_from(["EPIC-001", "EPIC-1", "epic-001", " EPIC-001"]) | ANYTHING,
        "title": WORDS | ANYTHING,
        "acceptance_criteria": st.lists(WORDS, max_size=2) | ANYTHING,
        "risks": st.lists(WORDS, max_size=2) | ANYTHING,
        "priority": st.sampled_from(["Alta", "alta"]) | ANYTHING,
        "more": ANYTHING,
    },
)


@settings(deadline=None, max_examples=400)
@given(output=EPICS | ANYTHING, given_input=st.just(INPUT) | ANYTHING)
def test_the_quick_validator_and_the_one_that_explains_agree(output: Any, given_input: Any) -> None:
    schema = json.loads((ROOT / "data/epic.schema.json").read_text(encoding="utf-8"))
    row = {"input": given_input, "output": output}
    found = list(epic_schema.row_errors(row))
    assert epic_schema.is_row(row) == (not found) == Draft202012Validator(schema).is_valid(row)
    assert {path for path, _, _ in found} >= {
        error.json_path
        for error in Draft202012Validator(schema).iter_errors(row)
        if error.validator != "additionalProperties"
    }
