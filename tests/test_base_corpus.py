"""The stream that the embedded base reads: disguise, stutter, real prose, tokenizer."""

import gzip
import itertools
import json
import random
import re
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from stages.shared.chatml import CHATML_TEMPLATE, END_OF_TEXT, IM_END, IM_START
from tests.test_corpus import strings_of, words_of
from tools import make_base_tiny
from tools.corpus import prose_documents
from tools.corpus.composed import Brief, Deck, composed
from tools.corpus.disguise import disguise, stutter
from tools.corpus.generate import INDUSTRIES
from tools.corpus.prose import is_prose
from tools.corpus.prose_documents import Library
from tools.make_base_tiny import Stretch, corpus, train_tokenizer

pytest.importorskip("spellchecker", reason="pyspellchecker (the extra `corpus`) is not installed")

ROOT = Path(__file__).parents[1]
SAMPLE, SEED, DISGUISED = 3_000, 5, 0.6
EPIC_KEYS = ("epicid", "acceptancecriteria", "userstories", "businessvalue", "outofscope", "successmetrics")
SHARED = "bodega almacén pedido factura camión horario cliente tarifa aviso jefatura muelle palé".split()
OWN = "resumen ventaja riesgo mejora equipo tablero".split()
FREQUENT = "para cuando debe sobre como este".split()
NUMBERS = [f"w{n}" for n in range(40)]


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library over the sentences that the lexicons hold: the real one is fetched from Debian's packages."""
    file = tmp_path_factory.mktemp("prose") / "prose.jsonl.gz"
    with gzip.open(file, "wt", encoding="utf-8") as out:
        for industry in INDUSTRIES:
            facts = [re.sub(r"\{n:(\d+)-\d+\}", r"\1", fact) for fact in industry.facts]
            out.writelines(json.dumps(" ".join(facts[i : i + 4]), ensure_ascii=False) + "\n" for i in (0, 4, 8))
    return Library(file)


@pytest.fixture(scope="module")
def sample(library: Library) -> list[list[Stretch]]:
    return list(itertools.islice(corpus(SEED, library, DISGUISED), SAMPLE))


def test_the_same_seed_gives_the_same_disguise() -> None:
    messages = talk(" ".join(SHARED), " ".join(SHARED + OWN))
    made = [disguise(messages, random.Random(seed)) for seed in range(20)]
    assert made == [disguise(messages, random.Random(seed)) for seed in range(20)]
    assert len({str(one) for one in made}) > 10
    assert messages == talk(" ".join(SHARED), " ".join(SHARED + OWN))


def test_a_shared_word_is_swapped_for_the_same_one_on_both_sides() -> None:
    question, answer = SHARED, [*reversed(SHARED), *map(str.capitalize, SHARED)]
    swapped = 0
    for seed in range(50):
        made = disguise(talk(" ".join(question), " ".join(answer)), random.Random(seed))
        asked, answered = (message["content"].split(" ") for message in made)
        assert answered == [*reversed(asked), *map(str.capitalize, asked)]
        for before, after in zip(SHARED, asked, strict=True):
            assert after[-2:] == before[-2:]
            swapped += after != before
    assert swapped > 100


def test_the_question_s_own_words_stay_and_the_answer_s_own_are_swapped_now_and_then() -> None:
    messages = talk("bodega horario", " ".join(OWN))
    made = [[message["content"].split(" ") for message in disguise(messages, random.Random(s))] for s in range(200)]
    assert all(question == ["bodega", "horario"] for question, _ in made)
    changed = [sum(a != b for a, b in zip(OWN, answer, strict=True)) for _, answer in made]
    assert changed.count(0) > 100
    assert sum(changed) > 10


def test_frequent_words_short_words_and_numbers_stay() -> None:
    text = " ".join([*FREQUENT, "el", "de", "mil", "2024", "RGPD-7", *SHARED])
    kept, swapped = len(FREQUENT) + 5, 0
    for seed in range(50):
        for message in disguise(talk(text, text), random.Random(seed)):
            words = message["content"].split(" ")
            assert words[: kept - 1] == text.split(" ")[: kept - 1]
            assert words[kept - 1].endswith("-7")
            swapped += words[kept:] != SHARED
    assert swapped > 50


def test_the_literals_of_json_stay_what_json_needs() -> None:
    answer = '{"activo": true, "cerrado": false, "fecha": null, "nota": "bodega"}'
    for seed in range(200):
        for message in disguise(talk(answer, answer), random.Random(seed)):
            assert list(json.loads(message["content"]).values())[:3] == [True, False, None]


def test_a_stutter_repeats_what_it_follows_and_only_that_is_not_learnt() -> None:
    text = " ".join(NUMBERS) + "\n" + " ".join(reversed(NUMBERS))
    for seed in range(100):
        stretches = stutter(text, random.Random(seed))
        assert "".join(part for part, learnt in stretches if learnt) == text
        assert [learnt for _, learnt in stretches] == [True, False] * (len(stretches) // 2) + [True]
        written = ""
        for part, learnt in stretches:
            if not learnt:
                phrase = re.match(r"((?: w\d+)+?)\1*$", part)
                assert phrase and written.endswith(phrase[1])
            written += part


def test_a_stutter_leaves_alone_what_is_no_run_of_words() -> None:
    for text in ("Hola", "a b", "- **x** - **y** -"):
        assert all(stutter(text, random.Random(seed)) == [(text, True)] for seed in range(30))


def test_the_same_seed_gives_the_same_stream(library: Library) -> None:
    first = list(itertools.islice(corpus(3, library, DISGUISED), 100))
    assert first == list(itertools.islice(corpus(3, library, DISGUISED), 100))
    assert first != list(itertools.islice(corpus(4, library, DISGUISED), 100))


def test_the_answers_are_learnt_and_the_questions_of_a_disguised_conversation_are_not(
    sample: list[list[Stretch]],
) -> None:
    asked = {True: 0, False: 0}
    for stretches in sample:
        assert stretches[-1] == (END_OF_TEXT, True)
        role = ""
        for text, learnt in stretches[:-1]:
            if text.startswith(IM_START):
                role = text.removeprefix(IM_START).strip()
            elif text != f"{IM_END}\n" and role == "user":
                asked[learnt] += 1
            elif text == f"{IM_END}\n" and role == "assistant":
                assert learnt
    share = asked[False] / sum(asked.values())
    assert abs(share - (1 - make_base_tiny.PROSE) * DISGUISED) < 0.05


def test_no_document_holds_a_key_of_an_epic(sample: list[list[Stretch]]) -> None:
    for stretches in sample:
        flat = re.sub(r"[^a-z]", "", "".join(text for text, _ in stretches).lower())
        assert not [key for key in EPIC_KEYS if key in flat]


def test_no_eight_words_in_a_row_come_from_the_data(sample: list[list[Stretch]]) -> None:
    runs: set[tuple[str, ...]] = set()
    for path in sorted((ROOT / "data").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for text in strings_of(json.loads(line)):
                words = words_of(text)
                runs.update(tuple(words[i : i + 8]) for i in range(len(words) - 7))
    assert len(runs) > 10_000
    for stretches in sample:
        words = words_of("".join(text for text, _ in stretches))
        assert not (shared := {tuple(words[i : i + 8]) for i in range(len(words) - 7)} & runs), shared


def test_prose_is_told_from_code_tables_and_other_languages() -> None:
    assert is_prose("Pulse en el botón para guardar los cambios de la hoja.")
    for text in (
        "Guardar como",
        "Click the button to save the changes of the sheet.",
        "Pulse en el botón <b> para guardar los cambios de la hoja.",
        "El valor de %s no es el que se espera en la columna de la hoja.",
        "Pulse en el botón para guardar los cambios de la hoja",
        "Clique no botão para guardar as alterações da folha que não são suas.",
    ):
        assert not is_prose(text), text


def test_every_kind_of_prose_document_answers_from_what_it_was_given(library: Library) -> None:
    rng = random.Random(2)
    for kind in prose_documents.KINDS:
        for _ in range(40):
            document = kind(library, rng)
            assert document[-1]["role"] == "assistant" and document[-2]["role"] == "user"
            asked = set(words_of(" ".join(message["content"] for message in document[:-1])))
            answered = words_of(document[-1]["content"])
            if kind is not prose_documents.continuation:
                shared = sum(word in asked for word in answered) / len(answered)
                assert shared > 0.4, document
            if kind is prose_documents.prose_to_object:
                keys = json.loads(document[-1]["content"])
                assert all(key in " ".join(message["content"] for message in document[:-1]) for key in keys)


def test_a_composed_object_has_the_keys_that_its_prompt_names_and_a_check_for_every_point(library: Library) -> None:
    rng = random.Random(4)
    shared = total = 0
    for _ in range(100):
        document = composed(library, rng)
        asked = " ".join(message["content"] for message in document[:-1])
        answer = json.loads(document[-1]["content"])
        assert all(f"«{key}»" in asked or f'"{key}"' in asked for key in answer)
        assert any(isinstance(value, list) and len(value) >= 3 for value in answer.values())
        words, known = words_of(document[-1]["content"]), set(words_of(asked))
        shared, total = shared + sum(word in known for word in words), total + len(words)
    assert shared > 0.5 * total


def test_a_composed_answer_takes_its_phrases_from_the_brief_one_after_the_other(library: Library) -> None:
    for seed in range(50):
        brief = Brief(library, random.Random(seed))
        told = " ".join([*brief.text, *brief.points]).lower()
        phrases = [" ".join(phrase) for phrase in brief.nouns.cards]
        assert all(phrase in told for phrase in phrases) or phrases == ["el trabajo"]
        written = [brief.fill("{np}") for _ in phrases]
        assert len(set(written)) == len(phrases)
        assert "{" not in brief.fill("{thing} {core} {fig} {who} {law} {date} {name} {acronym} {end} {quote} {n} {p}")


def test_a_deck_deals_every_card_before_one_comes_again() -> None:
    deck = Deck("abacb")
    assert "".join(deck.deal() for _ in range(7)) == "abcabca"


def test_a_statement_retold_keeps_most_of_its_words_in_order() -> None:
    statement = "Registrar la entrada de cada camión con su matrícula, el peso y la hora para la oficina de tráfico"
    told = {prose_documents.loosely(statement, random.Random(seed)) for seed in range(200)}
    assert len(told) > 50
    assert any(text.startswith("El sistema registra la entrada") for text in told)
    words = statement.split()[1:]
    for text in told:
        blocks = SequenceMatcher(None, words, text.split(), autojunk=False).get_matching_blocks()
        assert sum(block.size for block in blocks) >= 0.7 * len(words), text


def test_the_tokenizer_is_made_from_a_seed_and_gives_every_text_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Library
) -> None:
    monkeypatch.setattr(make_base_tiny, "TOKENIZER_CONVERSATIONS", 60)
    monkeypatch.setattr(make_base_tiny, "VOCABULARY", 1000)
    tokenizer = train_tokenizer(1, library, tmp_path / "a")
    train_tokenizer(1, library, tmp_path / "b")
    train_tokenizer(2, library, tmp_path / "c")
    one, same, other = ((tmp_path / name / "tokenizer.json").read_bytes() for name in "abc")
    assert one == same != other
    assert len(tokenizer) == 1000
    assert tokenizer.convert_tokens_to_ids([END_OF_TEXT, IM_START, IM_END]) == [0, 1, 2]
    assert tokenizer.chat_template == CHATML_TEMPLATE
    text = "  ¿Logroño, 1.200 €?\n\n\t{'a': «ñandú»} 漢字 🙂 "
    assert tokenizer.decode(tokenizer.encode(text)) == text
