"""The grammar that holds an answer to the schema: no keyword of an Epic can be violated, whatever the model prefers.

The model is a tiny random one with constant biases on some tokens, which outweigh everything that it has learnt: an
adversary for each keyword. Each has to win where the keyword is loosened, or it would prove nothing.
"""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from transformers import AutoTokenizer

from stages.shared.chatml import Encoder
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.llama_runtime import Llama
from tests.servers import free_port, llama_server
from tests.tiny_model import VOCABULARY, write_model

Schema = dict[str, Any]
OUTPUT: Schema = json.loads((Path(__file__).parents[1] / "data/epic.schema.json").read_text())["$defs"]["output"]
ANNOTATIONS = {"description", "title", "$schema"}  # they forbid nothing
TOKENS = 1000  # an adversary wants the answer to end, so it does
STRONG, SPACING, NEVER = 200, 20, -200


def drop(keyword: str) -> Callable[[Schema], None]:
    """Loosens every field and every item of a list."""

    def loosen(schema: Schema) -> None:
        for field in schema["properties"].values():
            for part in (field, field.get("items", {})):
                part.pop(keyword, None)

    return loosen


def no_required(schema: Schema) -> None:
    """Loosens the object."""
    del schema["required"]


def one_more_field(schema: Schema) -> None:
    """Loosens `additionalProperties`."""
    schema["properties"] = {"x": {"type": "string"}, **schema["properties"]}


def no_title(schema: Schema) -> None:
    """Loosens one of `properties`."""
    schema["properties"]["title"] = {"type": ["null", "string"]}


# Keyword: how it is loosened, and what the adversary wants to write, most wanted first; a comma wanted more than the
# brace makes it write every field.
ADVERSARIES: dict[str, tuple[Callable[[Schema], None], str]] = {
    "type": (drop("type"), 'n"],'),
    "properties": (no_title, 'n"],'),
    "required": (no_required, '}"],'),
    "additionalProperties": (one_more_field, '"x],'),
    "items": (drop("items"), '1"],'),
    "minItems": (drop("minItems"), ']",'),
    "minLength": (drop("minLength"), '"],'),
    "pattern": (drop("pattern"), '"],'),
    "enum": (drop("enum"), '"],'),
}


def keywords(schema: Any) -> Iterator[str]:
    """Every keyword of a schema; the names under `properties` are none."""
    yield from schema
    yield from (found for field in schema.get("properties", {}).values() for found in keywords(field))
    yield from keywords(schema["items"]) if "items" in schema else ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), max_position_embeddings=2048)


@pytest.fixture(scope="module", params=["embedded", "llama-server"])
def llama(request: pytest.FixtureRequest, folder: Path) -> Iterator[Llama]:
    """xllamacpp, which leaves the grammar to llguidance, and llama.cpp's own server, which makes it GBNF."""
    gguf = folder / "tiny.gguf"
    write_ggufs(read_model(folder), {"f16": gguf}, About("Tiny", "For tests.", "mit", ["es"], [], "a/b", "0123", {}))
    if request.param == "embedded":
        with Llama(gguf, 4, 1024) as llama:
            yield llama
        return
    port = free_port()
    with (
        llama_server(["-m", gguf.name, "-np", "4", "-c", "4096"], folder, port),
        Llama(gguf, 4, 1024, f"http://127.0.0.1:{port}") as llama,
    ):
        yield llama


def write(llama: Llama, folder: Path, schema: Schema, wanted: str, **sampling: Any) -> list[str]:
    """The answers, held to a schema, of a model that wants some characters and no blanks; those that it finished."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    decoded = {index: tokenizer.decode([index]) for index in range(VOCABULARY)}
    # Parts of letters neither: llama-server ends with an error at bytes that are no UTF-8. And no control or unused
    # tokens: its grammar counts their names as characters, the answer leaves them out. Validation finds such an answer.
    unwanted = {index for index, text in decoded.items() if not text.strip() or "\ufffd" in text}
    unwanted |= set(tokenizer.get_added_vocab().values()) - {tokenizer.eos_token_id}
    biases: dict[int, float] = dict.fromkeys(unwanted, NEVER)
    biases |= {tokenizer.get_vocab()[character]: STRONG - SPACING * rank for rank, character in enumerate(wanted)}
    encoder = Encoder(tokenizer)
    body = {
        "prompt": [encoder.prompt("Eres breve.", f"Caso {number}") for number in range(sampling.pop("answers", 1))],
        "n_predict": TOKENS,
        "temperature": 0,
        "frequency_penalty": 15,  # and does not write one of them for ever
        "repeat_last_n": 16,
        "json_schema": schema,
        "logit_bias": list(biases.items()),
    }
    answers = llama._ask("POST", "/completion", body | sampling)
    answers = answers if isinstance(answers, list) else [answers]
    return [answer["content"] for answer in answers if answer["stop_type"] == "eos"]


def violated(text: str) -> set[str]:
    """The keywords of the schema that an answer violates."""
    found = set()
    for error in Draft202012Validator(OUTPUT).iter_errors(json.loads(text)):
        found |= {str(error.validator), *({"properties", "items"} & set(error.schema_path))}
    return found


def test_every_keyword_of_an_epic_has_its_adversary() -> None:
    assert set(keywords(OUTPUT)) - ANNOTATIONS == set(ADVERSARIES)


@pytest.mark.parametrize("keyword", ADVERSARIES)
def test_an_answer_cannot_violate_a_keyword_that_it_violates_where_it_may(
    llama: Llama, folder: Path, keyword: str
) -> None:
    loosen, wanted = ADVERSARIES[keyword]
    loose = copy.deepcopy(OUTPUT)
    loosen(loose)
    (free,) = write(llama, folder, loose, wanted)
    assert keyword in violated(free), free
    (held,) = write(llama, folder, OUTPUT, wanted)
    assert violated(held) == set(), held


def test_answers_drawn_at_a_high_temperature_violate_nothing(llama: Llama, folder: Path) -> None:
    texts = write(llama, folder, OUTPUT, '"', temperature=3.0, seed=7, answers=16)
    assert len(set(texts)) >= 8
    assert [violated(text) for text in texts] == [set()] * len(texts)


@pytest.mark.parametrize(
    "unenforceable",
    [{"uniqueItems": True}, {"not": {"const": "x"}}, {"if": {"minLength": 9}}, {"dependentRequired": {"a": ["b"]}}],
)
def test_another_keyword_is_refused_by_xllamacpp_and_ignored_by_llama_server(
    llama: Llama, request: pytest.FixtureRequest, unenforceable: Schema
) -> None:
    """What is ignored while an answer is written is found when it is validated."""
    schema = copy.deepcopy(OUTPUT)
    schema["properties"]["risks"] |= unenforceable
    if "llama-server" in request.node.callspec.id:
        llama.answers([[5]], 1, schema, "held")
        return
    with pytest.raises(SystemExit, match=r"epic.schema.json: \$defs.output: llama.cpp cannot hold an answer to it"):
        llama.answers([[5]], 1, schema, "held")
