"""The quantize_gguf stage, run in a folder of its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from gguf import GGUFReader, GGUFValueType
from ruamel.yaml import YAML

from stages import quantize_gguf
from stages.shared.checksums import write_sums
from tests.tiny_model import write_model

Run = Callable[..., None]
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A folder with a merged model and reports; the result runs the stage for a list of methods."""
    write_sums(write_model(tmp_path / "models/merged"))
    (tmp_path / "reports").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("epics.jsonl", "epics_eval.jsonl"):
        shutil.copy(REPOSITORY / "data" / name, tmp_path / "data")
    tokens = {"prompt": {"max": 100}, "answer": {"max": 120}, "total": {"max": 220}}
    (tmp_path / "reports/format_chatml.json").write_text(json.dumps({"tokens": tokens}))
    (tmp_path / "data/chatml").mkdir(parents=True)
    row = json.dumps({"prompt_ids": [1, 40, 300], "answer_ids": [77, 123, 260, 2]}) + "\n"
    for split in ("train", "eval"):
        (tmp_path / f"data/chatml/{split}.jsonl").write_text(3 * row)
    monkeypatch.chdir(tmp_path)

    def run(methods: list[str], **knobs: Any) -> None:
        yaml = YAML()
        params = yaml.load(REPOSITORY / "params.yaml")
        params["quantize_gguf"] |= {"imatrix": False, "damage_texts": 2} | knobs
        params["quantize_gguf"]["methods"] = params["evaluate"]["methods"] = methods
        params["gate"]["method"] = methods[0]
        yaml.dump(params, tmp_path / "params.yaml")
        quantize_gguf.main()

    return run


def test_every_method_a_modelfile_and_a_card_are_written(workspace: Run, capsys: pytest.CaptureFixture[str]) -> None:
    workspace(["q4_k_m", "f16"])
    assert sorted(path.name for path in Path("models/gguf").iterdir()) == [
        "MODEL_CARD.md",
        "MiPM_Senior-F16.gguf",
        "MiPM_Senior-Q4_K_M.gguf",
        "Modelfile",
        "XXH128SUMS",
    ]
    modelfile = Path("models/gguf/Modelfile").read_text()
    assert modelfile.startswith("FROM ./MiPM_Senior-Q4_K_M.gguf\n")
    assert "num_predict 192\n" in modelfile and "num_ctx 512\n" in modelfile
    assert "Eres un Product Manager Senior experto." in modelfile
    card = Path("models/gguf/MODEL_CARD.md").read_text()
    front = card.split("---\n")[1].splitlines()
    assert front[0] == "base_model: Qwen/Qwen2.5-Coder-14B-Instruct"
    assert {"license: apache-2.0", "language: es", "pipeline_tag: text-generation"} <= set(front)
    assert "`MiPM_Senior-F16.gguf`" in card
    metrics = json.loads(Path("reports/quantize_gguf.json").read_text())
    assert list(metrics) == ["q4_k_m", "f16"]
    assert metrics["q4_k_m"]["bits_per_weight"] < 7 < 16 <= metrics["f16"]["bits_per_weight"] < 16.1
    size_mib = Path("models/gguf/MiPM_Senior-F16.gguf").stat().st_size / 2**20
    assert metrics["f16"]["size_mib"] == pytest.approx(size_mib, abs=0.01)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[-2:]] == ["  MiPM_Senior-Q4_K_M.gguf", "  MiPM_Senior-F16.gguf"]


def test_what_each_file_costs_is_reported_and_tabled(workspace: Run) -> None:
    workspace(["q4_0", "q8_0"])
    metrics = json.loads(Path("reports/quantize_gguf.json").read_text())
    assert metrics["q8_0"]["kl_divergence"] < metrics["q4_0"]["kl_divergence"]
    header, *rows = [line.split("\t") for line in Path("reports/quantize_gguf/damage.tsv").read_text().splitlines()]
    assert header == ["method", "imatrix", "size_mib", "kl_divergence", "perplexity_ratio"]
    assert [row[:2] for row in rows] == [["q4_0", "without"], ["q8_0", "without"]]
    assert [float(row[3]) for row in rows] == [metrics[method]["kl_divergence"] for method in ("q4_0", "q8_0")]


def test_without_texts_nothing_is_measured(workspace: Run) -> None:
    workspace(["q4_0"], damage_texts=0)
    assert "kl_divergence" not in json.loads(Path("reports/quantize_gguf.json").read_text())["q4_0"]
    assert Path("reports/quantize_gguf/damage.tsv").read_text().splitlines() == [
        "method\timatrix\tsize_mib",
        "q4_0\twithout\t" + str(json.loads(Path("reports/quantize_gguf.json").read_text())["q4_0"]["size_mib"]),
    ]


def test_an_importance_matrix_changes_the_file_and_lies_beside_it(workspace: Run) -> None:
    workspace(["q4_k_m"])
    without = Path("models/gguf/MiPM_Senior-Q4_K_M.gguf").read_bytes()
    assert not Path("models/gguf/MiPM_Senior-imatrix.gguf").exists()
    workspace(["q4_k_m"], imatrix=True)
    assert Path("models/gguf/MiPM_Senior-imatrix.gguf").is_file()
    given = Path("models/gguf/MiPM_Senior-Q4_K_M.gguf")
    assert given.read_bytes() != without


def test_a_file_says_by_which_importance_matrix_it_was_quantized_as_llama_cpp_would(workspace: Run) -> None:
    stored: dict[bool, dict[str, Any]] = {}
    for imatrix in (False, True):
        workspace(["q4_0"], imatrix=imatrix)
        fields = GGUFReader("models/gguf/MiPM_Senior-Q4_0.gguf").fields
        stored[imatrix] = {key: field for key, field in fields.items() if key.startswith("quantize.imatrix.")}
    assert stored[False] == {}
    assert {key: field.contents() for key, field in stored[True].items()} == {
        "quantize.imatrix.file": "MiPM_Senior-imatrix.gguf",
        "quantize.imatrix.dataset": "data/chatml/train.jsonl",
        "quantize.imatrix.entries_count": 2 * 7,
        "quantize.imatrix.chunks_count": 3,
    }
    assert stored[True]["quantize.imatrix.chunks_count"].types == [GGUFValueType.UINT32]


def test_too_little_memory_is_told_before_anything_is_written(workspace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    with pytest.raises(SystemExit, match=r"takes 0\.00 GiB of memory, 0\.00 GiB are free\. Close other programs"):
        workspace(["q4_k_m"])
    assert not list(Path("models").glob("*gguf*"))


def test_a_local_base_is_not_named_as_a_repo_of_the_hub(workspace: Run) -> None:
    file = Path("models/merged/training.json")
    training = json.loads(file.read_text())
    training["merge_base"]["name"] = "models/merged"
    file.write_text(json.dumps(training))
    write_sums(file.parent)
    workspace(["q4_0"])
    assert "base_model:" not in Path("models/gguf/MODEL_CARD.md").read_text()


def test_too_little_disk_space_is_told_before_anything_is_written(
    workspace: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(SystemExit, match=r"needs 0\.02 GiB, the disk has 0\.00 GiB free"):
        workspace(["q4_k_m"])
    assert not list(Path("models").glob("*gguf*"))


def test_a_failed_run_leaves_the_files_of_the_last_good_one(workspace: Run) -> None:
    workspace(["q4_0"])
    before = {path.name: path.read_bytes() for path in Path("models/gguf").iterdir()}
    Path("models/merged/chat_template.jinja").unlink()
    write_sums(Path("models/merged"))
    with pytest.raises(SystemExit, match=r"chat_template\.jinja: not found"):
        workspace(["q8_0"])
    assert {path.name: path.read_bytes() for path in Path("models/gguf").iterdir()} == before
