"""The synthetic corpus: reproducible, well formed, and with nothing of the project's data in it."""

import contextlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tools.corpus.generate import KINDS, conversations, labelled
from tools.corpus.sentences import conjugate, indicative, nominal, polish, verb_forms

ROOT = Path(__file__).parent.parent
SAMPLE = 3_000
EPIC_KEYS = {
    "epicid",
    "acceptancecriteria",
    "userstories",
    "businessvalue",
    "outofscope",
    "successmetrics",
}
SHARED_KEYS = {"title", "description", "priority", "risks", "dependencies", "context", "requerimientos"}
JSON_KINDS = {
    "items_to_json",
    "named_format",
    "by_example",
    "items_to_objects",
    "notes_to_tasks",
    "ticket_triage",
    "extraction",
    "json_repair",
    "json_edit",
}


@pytest.fixture(scope="module")
def sample() -> list[tuple[str, list[dict[str, str]]]]:
    return list(itertools.islice(labelled(11), SAMPLE))


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Every object inside a JSON value."""
    if isinstance(value, dict):
        return [value, *(o for v in value.values() for o in objects_in(v))]
    return [o for v in value for o in objects_in(v)] if isinstance(value, list) else []


def json_in(text: str) -> list[Any]:
    """Every JSON object or array in a text."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while match := re.compile(r"[\[{]").search(text, at):
        at = match.end()
        with contextlib.suppress(json.JSONDecodeError):
            value, at = decoder.raw_decode(text, match.start())
            found.append(value)
    return found


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def strings_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [s for v in parts for s in strings_of(v)]


def test_the_same_seed_gives_the_same_conversations() -> None:
    first = list(itertools.islice(conversations(3), 200))
    assert first == list(itertools.islice(conversations(3), 200))
    assert first != list(itertools.islice(conversations(4), 200))


def test_every_kind_occurs_and_the_long_ones_have_their_share(sample: list[Any]) -> None:
    size = dict.fromkeys(KINDS, 0)
    for kind, document in sample:
        size[kind] += sum(len(m["content"]) for m in document)
    assert not [kind for kind, characters in size.items() if characters == 0]
    family = (
        "items_to_json",
        "named_format",
        "items_to_objects",
        "items_to_markdown",
        "by_example",
        "rewriting",
    )
    assert 0.40 < sum(size[k] for k in family) / sum(size.values()) < 0.60


def test_a_conversation_alternates_user_and_assistant_and_ends_with_the_assistant(sample: list[Any]) -> None:
    for _, document in sample:
        roles = [m["role"] for m in document]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) and turns
        assert all(m["content"].strip() for m in document)


def test_the_answers_of_json_kinds_are_json(sample: list[Any]) -> None:
    for kind, document in sample:
        answer = next(m["content"] for m in document if m["role"] == "assistant")
        if kind in JSON_KINDS:
            json.loads(answer)


def test_no_object_has_the_shape_of_an_epic(sample: list[Any]) -> None:
    for _, document in sample:
        for message in document:
            flat = re.sub(r"[^a-z]", "", message["content"].lower())
            assert not [key for key in EPIC_KEYS if key in flat]
            assert "redactar epics" not in message["content"].lower()
            for value in json_in(message["content"]):
                for found in objects_in(value):
                    shared = {key.lower() for key in found} & SHARED_KEYS
                    assert len(shared) <= 2 and not {"context", "requerimientos"} <= shared, found


def test_the_text_is_finished_spanish(sample: list[Any]) -> None:
    wrong = re.compile(
        r"\{[a-z_0-9]+\}|\bn_\d|None\b|\b(?:de|a) el (?![A-ZÁÉÍÓÚÑ])| y i[a-z]"
        r"|(?<!\.)\.\.(?!\.)|  +(?=[a-z])|\b1 (?:minuto|segundo|hora)s\b"
    )
    for kind, document in sample:
        for message in document:
            text = re.sub(r"(?m)^ +", "", message["content"])
            assert not (found := wrong.search(text)), (
                kind,
                text[max(0, found.start() - 60) : found.end() + 60],
            )


def test_no_eight_words_in_a_row_come_from_the_data(sample: list[Any]) -> None:
    data = [ROOT / "data" / name for name in ("epics.jsonl", "epics_eval.jsonl")]
    runs: set[tuple[str, ...]] = set()
    for path in data:
        for line in path.read_text(encoding="utf-8").splitlines():
            for text in strings_of(json.loads(line)):
                words = words_of(text)
                runs.update(tuple(words[i : i + 8]) for i in range(len(words) - 7))
    assert runs
    for _, document in sample:
        for message in document:
            words = words_of(message["content"])
            assert not (shared := {tuple(words[i : i + 8]) for i in range(len(words) - 7)} & runs), shared


@pytest.mark.parametrize(
    ("infinitive", "forms"),
    [
        ("registrar", ("registra", "registre")),
        ("buscar", ("busca", "busque")),
        ("enviar", ("envía", "envíe")),
        ("elegir", ("elige", "elija")),
        ("recibir", ("recibe", "reciba")),
        ("cargar", ("carga", "cargue")),
        ("autorizar", ("autoriza", "autorice")),
        ("lugar", None),
        ("xixir", None),
    ],
)
def test_verbs_are_conjugated_or_refused(infinitive: str, forms: tuple[str, str] | None) -> None:
    assert conjugate(infinitive) == forms


def test_coordinated_verbs_are_conjugated_together() -> None:
    assert verb_forms("firmar el acta y enviar la copia") == (
        "firma el acta y envía la copia",
        "firme el acta y envíe la copia",
    )
    assert verb_forms("firmar el acta y avisarle") is None
    assert nominal("exportar los albaranes a CSV") == "la exportación de los albaranes a CSV"


def test_a_wish_becomes_a_statement() -> None:
    assert indicative("que el listado cargue en menos de 3 segundos") == "el listado carga en menos de 3 segundos"


def test_contractions_and_singulars_are_mended() -> None:
    assert (
        polish("aviso de el turno a el jefe y imprimir en 1 segundos")
        == "aviso del turno al jefe e imprimir en 1 segundo"
    )
