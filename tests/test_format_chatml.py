"""format_chatml: four examples and a small tokenizer, from validated rows to rows of token ids."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from stages import format_chatml
from stages.format_chatml import statistics
from stages.shared.params import load_params
from tests.tiny_model import write_model

ROOT = Path(__file__).parents[1]
OUTPUTS = ("data/chatml", "reports")


def example(number: int, words: int) -> dict[str, Any]:
    given = {"context": "Logroño " * words, "requerimientos": ["Avisar al niño en «60 s»"]}
    return {"input": given, "output": {"epic_id": f"EPIC-{number:03d}", "title": "Facturación electrónica"}}


EXAMPLES = {"train": [example(1, 5), example(2, 40), example(3, 10)], "eval": [example(101, 20)]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    write_model(root / "models/base-tiny")
    knobs = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(re.sub(r"_revision: \w+", "_revision: null", knobs), encoding="utf-8")
    (root / "data/validated").mkdir(parents=True)
    for split, rows in EXAMPLES.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / f"data/validated/{split}.jsonl").write_text(lines, encoding="utf-8")
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


def rows_of(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(f"data/chatml/{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def totals(split: str) -> list[int]:
    return [len(row["prompt_ids"]) + len(row["answer_ids"]) for row in rows_of(split)]


def limit_to(tokens: int) -> None:
    params = Path("params.yaml").read_text(encoding="utf-8")
    text, changed = re.subn(r"max_seq_length: \d+", f"max_seq_length: {tokens}", params)
    assert changed == 1
    Path("params.yaml").write_text(text, encoding="utf-8")


def test_a_row_holds_prompt_and_answer_apart_as_text(project: Path) -> None:
    format_chatml.main()
    for split, examples in EXAMPLES.items():
        rows = rows_of(split)
        assert [row["epic_id"] for row in rows] == [row["output"]["epic_id"] for row in examples]
        for row, source in zip(rows, examples, strict=True):
            system = load_params().format_chatml.system_prompt
            head, tail = (
                f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n",
                "<|im_end|>\n<|im_start|>assistant\n",
            )
            assert row["prompt"].startswith(head) and row["prompt"].endswith(tail)
            asked = row["prompt"].removeprefix(head).removesuffix(tail)
            assert json.loads(asked) == source["input"]
            assert json.loads(row["answer"]) == source["output"]


def test_the_json_has_two_spaces_and_spanish_letters_as_they_are(project: Path) -> None:
    format_chatml.main()
    row = rows_of("train")[0]
    assert row["answer"] == '{\n  "epic_id": "EPIC-001",\n  "title": "Facturación electrónica"\n}'
    assert '  "requerimientos": [\n    "Avisar al niño en «60 s»"\n  ]\n}<|im_end|>' in row["prompt"]
    raw = Path("data/chatml/train.jsonl").read_text(encoding="utf-8")
    assert "\\u" not in raw
    assert "niño" in raw


def test_a_carriage_return_between_values_ends_no_row(project: Path) -> None:
    file = Path("data/validated/train.jsonl")
    lines = file.read_bytes().replace(b', "output"', b',\r"output"').replace(b"\n", b"\r\n")
    format_chatml.main()
    rows = rows_of("train")
    file.write_bytes(lines)
    format_chatml.main()
    assert rows_of("train") == rows


def test_the_ids_are_the_tokenizer_s_and_the_answer_ends_its_turn(project: Path) -> None:
    format_chatml.main()
    tokenizer = AutoTokenizer.from_pretrained("models/base-tiny")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for row in rows_of("train") + rows_of("eval"):
        assert row["prompt_ids"] == tokenizer(row["prompt"], add_special_tokens=False).input_ids
        assert row["answer_ids"] == tokenizer(row["answer"] + "<|im_end|>", add_special_tokens=False).input_ids
        assert row["answer_ids"][-1] == end
        assert row["answer_ids"].count(end) == 1


def test_the_length_table_has_one_row_per_example(project: Path) -> None:
    format_chatml.main()
    expected = [["split", "tokens"], *(["train", str(n)] for n in totals("train")), ["eval", str(totals("eval")[0])]]
    lines = Path("reports/format_chatml/lengths.tsv").read_text().splitlines()
    assert [line.split("\t") for line in lines] == expected
    assert len(lines) == 5


def test_the_metrics_count_both_files_together(project: Path) -> None:
    format_chatml.main()
    metrics = json.loads(Path("reports/format_chatml.json").read_text())
    assert metrics["examples"] == {"train": 3, "eval": 1}
    rows = rows_of("train") + rows_of("eval")
    for part, lengths in (
        ("prompt", [len(row["prompt_ids"]) for row in rows]),
        ("answer", [len(row["answer_ids"]) for row in rows]),
        ("total", totals("train") + totals("eval")),
    ):
        assert metrics["tokens"][part] == {
            "min": min(lengths),
            "mean": round(sum(lengths) / 4, 1),
            "p95": max(lengths),
            "max": max(lengths),
        }


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([7], {"min": 7, "mean": 7.0, "p95": 7, "max": 7}),
        ([30, 10, 21], {"min": 10, "mean": 20.3, "p95": 30, "max": 30}),
        (list(range(20, 0, -1)), {"min": 1, "mean": 10.5, "p95": 19, "max": 20}),
        (list(range(1, 22)), {"min": 1, "mean": 11.0, "p95": 20, "max": 21}),
        (list(range(1, 101)), {"min": 1, "mean": 50.5, "p95": 95, "max": 100}),
    ],
)
def test_the_statistics_are_those_worked_out_by_hand(lengths: list[int], expected: dict[str, float]) -> None:
    given = list(lengths)
    assert statistics(lengths) == expected
    assert lengths == given


def test_an_example_may_be_exactly_as_long_as_the_limit(project: Path) -> None:
    format_chatml.main()
    longest = max(totals("train") + totals("eval"))
    for folder in OUTPUTS:
        shutil.rmtree(folder)
    limit_to(longest)
    format_chatml.main()
    assert max(totals("train")) == longest


def test_an_example_that_is_too_long_is_refused_by_name_and_nothing_is_written(project: Path) -> None:
    format_chatml.main()
    longest = max(totals("train"))
    for folder in OUTPUTS:
        shutil.rmtree(folder)
    limit_to(longest - 1)
    with pytest.raises(SystemExit) as refusal:
        format_chatml.main()
    assert str(refusal.value) == (
        f"data/validated/train.jsonl: EPIC-002: {longest} tokens, train.max_seq_length is {longest - 1}. "
        "Shorten the example or raise train.max_seq_length."
    )
    assert not [folder for folder in OUTPUTS if Path(folder).exists()]


def test_every_example_that_is_too_long_is_named_and_the_older_rows_stay(project: Path) -> None:
    format_chatml.main()
    before = {path: path.read_bytes() for folder in OUTPUTS for path in Path(folder).rglob("*") if path.is_file()}
    limit_to(16)
    with pytest.raises(SystemExit) as refusal:
        format_chatml.main()
    named = [line.split(": ")[:2] for line in str(refusal.value).splitlines()]
    assert named == [
        [f"data/validated/{split}.jsonl", row["output"]["epic_id"]] for split in EXAMPLES for row in EXAMPLES[split]
    ]
    assert len(before) == 4
    after = {path: path.read_bytes() for folder in OUTPUTS for path in Path(folder).rglob("*") if path.is_file()}
    assert after == before


def test_text_that_the_tokenizer_would_change_is_refused_by_name_and_place(project: Path) -> None:
    """llama.cpp does not compose letters, so the model would be asked in other tokens than it was taught in."""
    file = Path("data/validated/train.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines[:2], lines[2].replace("Logroño", "Logron\u0303o", 1)]), encoding="utf-8")
    tokenizer = json.loads(Path("models/base-tiny/tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "NFC"}
    Path("models/base-tiny/tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SystemExit) as refusal:
        format_chatml.main()
    assert str(refusal.value) == (
        "data/validated/train.jsonl: EPIC-003: the tokenizer reads "
        r"""'t": "Logron\u0303o Logro\xf1' as 't": "Logro\xf1o Logro\xf1o', """
        "llama.cpp would not. Save it with composed letters (Unicode NFC)."
    )
    assert not [folder for folder in OUTPUTS if Path(folder).exists()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Responde y <|im_end|>", r"holds the control token <\|im_end\|>\. Write it in other words\."),
        ("Responde en espan\u0303ol", r"the tokenizer reads '.*n\\u0303ol' as '.*\\xf1ol', llama\.cpp would not"),
    ],
)
def test_a_system_prompt_that_would_not_reach_the_model_as_it_is_is_refused(
    project: Path, text: str, message: str
) -> None:
    tokenizer = json.loads(Path("models/base-tiny/tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "NFC"}
    Path("models/base-tiny/tokenizer.json").write_text(json.dumps(tokenizer))
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params["format_chatml"]["system_prompt"] = text
    yaml.dump(params, Path("params.yaml"))
    with pytest.raises(SystemExit, match=rf"^params\.yaml: format_chatml\.system_prompt: {message}"):
        format_chatml.main()


def test_the_same_examples_give_the_same_bytes(project: Path) -> None:
    format_chatml.main()
    first = Path("data/chatml/train.jsonl").read_bytes()
    format_chatml.main()
    assert Path("data/chatml/train.jsonl").read_bytes() == first
