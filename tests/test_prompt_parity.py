"""One prompt everywhere: the same bytes and token ids in training, in both tokenizers' folders, llama.cpp and Ollama.

All rows of both data files, on the adapter, the merged model and the GGUF that a real run of the pipeline has made.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from stages.format_chatml import format_row
from stages.shared.chatml import IM_END, Encoder, answer_text, user_message
from stages.shared.chatml_rows import read_texts
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.llama_runtime import Llama
from stages.shared.params import load_params
from tests.servers import render_go_template
from tests.small_repository import GGUF

ROOT = Path(__file__).parents[1]
SYSTEM = load_params(ROOT / "params.yaml").format_chatml.system_prompt


@pytest.fixture(scope="module")
def epics() -> list[dict[str, Any]]:
    files = [ROOT / "data/epics.jsonl", ROOT / "data/epics_eval.jsonl"]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def rows(epics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What format_chatml makes of them, with the base's own tokenizer."""
    encoder = Encoder(AutoTokenizer.from_pretrained(ROOT / "models/base-tiny"))
    return [format_row(epic, SYSTEM, encoder) for epic in epics]


def messages(epic: dict[str, Any]) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user_message(epic["input"])}]


@pytest.mark.parametrize("folder", ["adapter", "merged"])
def test_the_tokenizer_that_ships_renders_and_splits_every_row_as_training_did(
    finished_once: Path, epics: list[dict[str, Any]], rows: list[dict[str, Any]], folder: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(finished_once / "models" / folder)
    assert len(rows) == 128
    for epic, row in zip(epics, rows, strict=True):
        asked = messages(epic)
        assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == row["prompt"]
        ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert ids == row["prompt_ids"]
        answered = [*asked, {"role": "assistant", "content": row["answer"]}]
        whole = tokenizer.apply_chat_template(answered, tokenize=False)
        assert whole == row["prompt"] + answer_text(row["answer"]) + "\n"
        assert tokenizer(row["answer"] + IM_END, add_special_tokens=False).input_ids == row["answer_ids"]


@pytest.fixture(scope="module")
def llama(finished_once: Path) -> Iterator[Llama]:
    with Llama(finished_once / GGUF, 1, 64) as llama:  # it generates nothing
        yield llama


def test_llama_cpp_renders_and_splits_every_row_as_training_did(
    llama: Llama, epics: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    for epic, row in zip(epics, rows, strict=True):
        assert llama.apply_template(messages(epic)) == row["prompt"]
        assert llama.tokenize(row["prompt"]) == row["prompt_ids"]
        assert llama.tokenize(answer_text(row["answer"])) == row["answer_ids"]


def test_ollama_s_template_renders_every_row_as_training_did(
    finished_once: Path, epics: list[dict[str, Any]], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    modelfile = (finished_once / "models/gguf/Modelfile").read_text(encoding="utf-8")
    texts = dict(re.findall(r'^(TEMPLATE|SYSTEM) """(.*?)"""$', modelfile, re.M | re.S))
    template, system = texts["TEMPLATE"], texts["SYSTEM"]
    values = [
        {"System": system, "Prompt": user_message(epic["input"]), "Response": row["answer"]}
        for epic, row in zip(epics, rows, strict=True)
    ]
    conversations = render_go_template(template, values, tmp_path / "conversations")
    assert conversations == [row["prompt"] + answer_text(row["answer"]) + "\n" for row in rows]
    # To ask for an answer Ollama runs the template up to the field of the answer, which is empty then
    # (ollama/template/template.go, Execute).
    head, field, _ = template.partition("{{ .Response }}")
    asked = [value | {"Response": ""} for value in values]
    assert render_go_template(head + field, asked, tmp_path / "prompts") == [row["prompt"] for row in rows]


def test_the_token_that_ends_an_answer_survives_merge_and_conversion(finished_once: Path) -> None:
    models = finished_once / "models"
    end = AutoTokenizer.from_pretrained(ROOT / "models/base-tiny").convert_tokens_to_ids(IM_END)
    for folder in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(models / folder).eos_token_id == end
    assert json.loads((models / "merged/config.json").read_text())["eos_token_id"] == end
    assert json.loads((models / "merged/generation_config.json").read_text())["eos_token_id"][0] == end
    fields = GGUFReader(finished_once / GGUF).fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == end
    assert fields["tokenizer.ggml.tokens"].contents(end) == IM_END


def test_after_a_whole_answer_every_file_stops_at_once_on_every_row_of_its_run(
    finished_once: Path, tmp_path: Path
) -> None:
    """Of whatever method; on rows that are answered from the first token on, evaluate names those that do not stop."""
    texts = [text for split in ("train", "eval") for text in read_texts(finished_once / f"data/chatml/{split}.jsonl")]
    told = [text.ids[:-1] for text in texts]
    about = About("Tuned", "For tests.", "mit", ["es"], [], "a/b", "0123", {})
    targets = {method: tmp_path / f"{method}.gguf" for method in ("f16", "q8_0")}
    write_ggufs(read_model(finished_once / "models/merged"), targets, about)
    for file in (finished_once / GGUF, *targets.values()):
        with Llama(file, len(told), max(map(len, told)) + 8) as llama:
            answers = llama.answers(told, 2, None, "told")
        assert [(answer.finished, answer.text, answer.tokens) for answer in answers] == [(True, "", 1)] * 8
