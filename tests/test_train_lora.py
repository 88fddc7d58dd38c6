"""train_lora: masks, resuming, refusals; a real model of the base's architecture is trained."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.shared.fingerprint import sha256
from stages.train_lora import IGNORED, check_labels, example, last_checkpoint

ROOT = Path(__file__).parent.parent
BASE = ROOT / "models/base-tiny"


def test_the_loss_is_taken_on_the_answer_alone() -> None:
    row = {"prompt_ids": [5, 6, 7], "answer_ids": [8, 9, 2]}
    assert example(row, "answer") == {"input_ids": [5, 6, 7, 8, 9, 2], "labels": [IGNORED] * 3 + [8, 9, 2]}


def test_the_loss_is_taken_on_the_whole_conversation_when_asked() -> None:
    row = {"prompt_ids": [5, 6, 7], "answer_ids": [8, 9, 2]}
    assert example(row, "conversation")["labels"] == [5, 6, 7, 8, 9, 2]


@pytest.mark.parametrize("labels", [[IGNORED, IGNORED], [IGNORED, 8, 9], [IGNORED, 2, 9]])
def test_a_row_that_would_not_teach_the_model_to_stop_is_refused_by_name(labels: list[int]) -> None:
    with pytest.raises(SystemExit, match=r"EPIC-007: .*<\|im_end\|>"):
        check_labels([{"input_ids": [1] * len(labels), "labels": labels}], ["EPIC-007"], end=2)


def test_a_checkpoint_that_was_being_written_when_the_run_was_killed_is_not_resumed_from(tmp_path: Path) -> None:
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "none") is None


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The code, the base and eight formatted rows in a folder of their own."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(BASE, tmp_path / "models/base-tiny")
    shutil.copytree(ROOT / "data", tmp_path / "data", ignore=shutil.ignore_patterns("validated", "chatml"))
    for file, rows in (("epics.jsonl", 6), ("epics_eval.jsonl", 2)):
        lines = (ROOT / "data" / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "data" / file).write_text("".join(lines[:rows]), encoding="utf-8")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    for stage in ("validate", "format_chatml"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def set_param(project: Path, old: str, new: str) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")


def train(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stages.train_lora"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=600)


def test_a_killed_training_resumes_and_ends_with_the_very_bytes_of_an_uninterrupted_one(project: Path) -> None:
    whole = train(project)
    assert whole.returncode == 0, whole.stderr[-2000:]
    expected = sha256(project / "models/adapter/adapter_model.safetensors")
    shutil.rmtree(project / "models/adapter")

    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train_lora"], cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((project / "models/checkpoints").glob("*/checkpoint-*/trainer_state.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (project / "models/adapter").exists()

    resumed = train(project)
    assert "resumes from" in resumed.stdout
    assert sha256(project / "models/adapter/adapter_model.safetensors") == expected
    assert not list((project / "models/checkpoints").iterdir())


def test_the_adapter_says_what_it_was_trained_from(project: Path) -> None:
    set_param(project, "epochs: 3", "epochs: 1")
    done = train(project)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((project / "models/adapter/training.json").read_text(encoding="utf-8"))
    assert record["base_model"]["name"] == "models/base-tiny"
    assert len(record["base_model"]["revision"]) == 16
    assert record["data"]["train_sha256"] == sha256(project / "data/chatml/train.jsonl")
    assert record["lora"]["r"] == 16
    assert (project / "models/adapter/chat_template.jinja").is_file()
    losses = (project / "reports/train/plots/metrics/train/loss.tsv").read_text(encoding="utf-8").splitlines()
    assert losses[0] == "step\tloss"
    assert len(losses) == 1 + 2  # six examples in effective batches of four


def test_an_optimizer_that_needs_a_gpu_is_refused_without_one(project: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    set_param(project, "optimizer: adamw_torch", "optimizer: paged_adamw_8bit")
    done = train(project)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("params.yaml: train.optimizer: paged_adamw_8bit needs a GPU")
    assert not (project / "models/adapter").exists()


def test_weights_other_than_the_pinned_ones_are_refused(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(
        text.replace("train_revision: null", "train_revision: '0000000000000000'", 1), encoding="utf-8"
    )
    done = train(project)
    assert done.returncode == 1
    assert "params.yaml pins base_model.train_revision to 0000000000000000" in done.stderr
