"""scoring.py against cases counted by hand, and against the hand-written Epics that ship."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.shared import scoring
from stages.shared.scoring import (
    chrf,
    content_stems,
    covered,
    criteria_of,
    field_coverage,
    parse_object,
    requirement_coverage,
    score,
    wilson_interval,
)

DATA = Path(__file__).parents[2] / "data"
REFERENCE = {
    "epic_id": "EPIC-001",
    "title": "Alta de clientes",
    "acceptance_criteria": ["Exporta a CSV"],
    "priority": "Alta",
}


def epics() -> list[dict[str, Any]]:
    lines = (DATA / "epics.jsonl").read_text(encoding="utf-8") + (DATA / "epics_eval.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),  # Wilson 1927's formula, as statsmodels and R's prop.test(correct=FALSE) give it
        (0, 24, 0.0, 0.1380),
        (24, 24, 0.8620, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),  # Newcombe 1998, table I
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_the_rate_and_its_ends_are_one_z_away_from_it(case: tuple[int, int]) -> None:
    successes, n = case
    rate = successes / n
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= rate + 1e-12 and rate - 1e-12 <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:  # the definition: at the ends, the rate is exactly z standard errors off
            assert abs(rate - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"EPIC"',
        '{"a": NaN}',
        '{"a": -Infinity}',
        'Aquí está: {"a": 1}',
        '{"a": 1} fin',
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": "\\ud83d"}',  # half of an emoji
        '{"\\udc00": 1}',
    ],
)
def test_what_is_not_one_json_object_is_nothing(text: str) -> None:
    assert parse_object(text) is None


def test_a_json_object_may_stand_between_blanks() -> None:
    assert parse_object('\n {"título": "ñ"} \n') == {"título": "ñ"}


@given(st.text(max_size=200))
def test_no_text_breaks_the_scores(text: str) -> None:
    scores = score(text, False, ["Exportar a CSV"], REFERENCE)
    assert all(0 <= value <= 1 for value in scores.values())


def test_stems_ignore_case_accents_endings_and_small_words() -> None:
    assert content_stems("El sistema debe EXPORTAR la facturación") == content_stems("facturacion exportará")
    assert content_stems("p95 < 300 ms y 5 usuarios") == content_stems("300 ms, 5 usuario, p95")
    assert content_stems("de la y para que") == frozenset()


def test_a_requirement_is_covered_by_half_of_its_stems_in_one_criterion_and_not_in_two() -> None:
    requirement = "Exportar facturas mensuales a CSV"  # export, factur, mensual, csv
    assert covered(requirement, ["Se exporta un CSV en 2 segundos."])
    assert not covered(requirement, ["Se exporta en 2 segundos.", "Hay un archivo CSV."])
    assert not covered(requirement, [])
    assert not covered("Que sea así", ["Cualquier criterio"])


def test_requirement_coverage_counts_requirements() -> None:
    requirements = ["Exportar a CSV", "Cifrar contraseñas", "Latencia p95 < 300 ms"]
    criteria = ["El usuario exporta los datos a CSV.", "Ninguna contraseña queda sin cifrar."]
    assert requirement_coverage(requirements, criteria) == pytest.approx(2 / 3)


def test_field_coverage_wants_fields_filled_and_of_the_reference_s_type() -> None:
    assert field_coverage(REFERENCE, REFERENCE) == 1
    assert field_coverage({}, REFERENCE) == 0
    answer = {"epic_id": "EPIC-9", "title": "", "acceptance_criteria": "uno", "priority": "Baja", "otro": 1}
    assert field_coverage(answer, REFERENCE) == 2 / 4


def test_criteria_that_are_no_list_of_strings_are_left_out() -> None:
    assert criteria_of({"acceptance_criteria": ["uno", 2, None, "dos"]}) == ["uno", "dos"]
    assert criteria_of({"acceptance_criteria": "uno"}) == []
    assert criteria_of(None) == []


def test_a_reference_scores_full_marks_and_prose_none() -> None:
    epic = epics()[0]
    requirements, reference = epic["input"]["requerimientos"], epic["output"]
    full = score(json.dumps(reference, ensure_ascii=False), True, requirements, reference)
    assert full == dict.fromkeys(full, 1.0)
    none = score("Claro, aquí está la Epic.", False, requirements, reference)
    assert none == dict.fromkeys(full, 0.0)


def test_the_share_that_counts_as_covered_tells_an_epic_s_own_criteria_from_another_s() -> None:
    data = epics()
    own = other = total = 0
    for epic, stranger in zip(data, data[1:] + data[:1], strict=True):
        for requirement in epic["input"]["requerimientos"]:
            own += covered(requirement, epic["output"]["acceptance_criteria"])
            other += covered(requirement, stranger["output"]["acceptance_criteria"])
            total += 1
    assert scoring.COVERED == 0.5
    assert own / total >= 0.99
    assert other / total <= 0.02


def test_chrf_is_full_for_the_reference_and_next_to_nothing_for_other_letters() -> None:
    assert chrf(["Exporta a CSV"], ["Exporta a CSV"]) == pytest.approx(100)
    assert chrf(["zzzz"], ["Exporta a CSV"]) == 0
    assert chrf([""], ["Exporta a CSV"]) == 0
