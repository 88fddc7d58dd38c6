"""train_lora: masks, resuming, refusals; a real model of two layers is trained."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stages.format_chatml import format_row
from stages.shared.base_model import folder_digest
from stages.shared.chatml import Encoder
from stages.shared.checksums import write_sums
from stages.shared.fingerprint import sha256
from stages.train_lora import IGNORED, aligned, check_labels, example, last_checkpoint
from tests.small_repository import run, write_repository
from tests.tiny_model import SENTENCES, write_model

ROOT = Path(__file__).parent.parent
ADAPTER = Path("models/adapter/adapter_model.safetensors")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # a model this small only waits for a second one
KNOBS = {
    "train": "models/base-tiny",
    "train_revision": "null",
    "merge_revision": "null",
    "r": "16",
    "dropout": "0.1",  # draws random numbers at every step: a resumed run has to go on with them
    "epochs": "3",
    "micro_batch_size": "2",
    "effective_batch_size": "4",
    "max_seq_length": "512",
    "logging_steps": "1",
    "precision": "float32",
}


def test_the_loss_is_taken_on_the_answer_alone() -> None:
    row = {"prompt_ids": [5, 6, 7], "answer_ids": [8, 9, 2]}
    assert example(row, "answer") == {"input_ids": [5, 6, 7, 8, 9, 2], "labels": [IGNORED] * 3 + [8, 9, 2]}


def test_the_loss_is_taken_on_the_whole_conversation_when_asked() -> None:
    row = {"prompt_ids": [5, 6, 7], "answer_ids": [8, 9, 2]}
    assert example(row, "conversation")["labels"] == [5, 6, 7, 8, 9, 2]


@pytest.mark.parametrize("lengths", [(3, 60), (64,), (65, 1), (128, 1, 70)])
def test_a_flattened_row_ends_at_a_multiple_of_64_tokens_and_the_new_ones_are_not_learnt(lengths: tuple[int]) -> None:
    examples = [{"input_ids": [7] * length, "labels": [8] * length} for length in lengths]
    *others, last = aligned(lambda rows: rows, pad=0)(examples)
    added = -sum(lengths) % 64
    assert others == examples[:-1]
    assert last == {"input_ids": [7] * lengths[-1] + [0] * added, "labels": [8] * lengths[-1] + [IGNORED] * added}


ROW = {"epic_id": "EPIC-007", "prompt_ids": [1, 5, 2]}


@pytest.mark.parametrize("answer", [[], [IGNORED], [8, 9], [2, 9], [8, 2, 9, 2], [IGNORED, 2]])
@pytest.mark.parametrize("prompt", [[IGNORED] * 3, [1, 5, 2]])
def test_a_row_that_would_not_teach_the_model_where_to_stop_is_refused_by_name(
    prompt: list[int], answer: list[int]
) -> None:
    with pytest.raises(SystemExit, match=r"EPIC-007: .*<\|im_end\|> once, at their end"):
        check_labels([{"input_ids": [1] * (3 + len(answer)), "labels": prompt + answer}], [ROW], end=2)


@pytest.mark.parametrize("loss_on", ["answer", "conversation"])
def test_a_row_that_stops_once_is_trained_on_whatever_the_loss_is_taken_on(loss_on: str) -> None:
    row = ROW | {"answer_ids": [8, 9, 2]}
    check_labels([example(row, loss_on)], [row], end=2)


def test_a_checkpoint_that_was_being_written_when_the_run_was_killed_is_not_resumed_from(tmp_path: Path) -> None:
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / "trainer_state.json").write_text("{}")
            write_sums(folder)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_checkpoint(tmp_path / "none") is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_resumed_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}/adapter_model.safetensors").write_bytes(b"weights")
        write_sums(tmp_path / f"checkpoint-{step}")
    damaged = tmp_path / "checkpoint-4/adapter_model.safetensors"
    damaged.write_bytes(b"weighty")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert capsys.readouterr().out.startswith(f"  {damaged}: damaged: its XXH3-128 is ")


def set_knob(project: Path, name: str, value: str) -> None:
    file = project / "params.yaml"
    text, found = re.subn(rf"(?m)^  {name}: .*$", f"  {name}: {value}", file.read_text(encoding="utf-8"))
    assert found == 1
    file.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code, a tiny base and seven formatted rows in a folder of their own."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "params.yaml", root / "params.yaml")
    for name, value in KNOBS.items():
        set_knob(root, name, value)
    base = write_model(root / "models/base-tiny")
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    (root / "data/chatml").mkdir(parents=True)
    for split, numbers in (("train", range(1, 6)), ("eval", range(6, 8))):
        rows = [
            {
                "input": {"context": SENTENCES[n % 3] * (1 + n % 2), "requerimientos": [SENTENCES[(n + 1) % 3]]},
                "output": {"epic_id": f"EPIC-{n:03d}", "title": SENTENCES[(n + 2) % 3]},
            }
            for n in numbers
        ]
        lines = [json.dumps(format_row(row, "Eres un PM.", encoder)) + "\n" for row in rows]
        (root / f"data/chatml/{split}.jsonl").write_text("".join(lines))
    return root


def train(project: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "stages.train_lora"]
    return subprocess.run(
        command, cwd=project, env=ONE_THREAD, capture_output=True, text=True, check=False, timeout=600
    )


def kill_after_the_first_checkpoint(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train_lora"],
        cwd=project,
        env=ONE_THREAD,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list((project / "models/checkpoints").glob("*/checkpoint-*/XXH128SUMS")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(scope="module")
def trained(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after a training that nothing interrupted."""
    root = Path(shutil.copytree(made, tmp_path_factory.mktemp("trained") / "project"))
    done = train(root)
    assert done.returncode == 0, done.stderr[-2000:]
    (root / "stdout").write_text(done.stdout, encoding="utf-8")
    return root


def test_a_killed_training_resumes_and_ends_with_the_very_bytes_of_an_uninterrupted_one(
    trained: Path, project: Path
) -> None:
    kill_after_the_first_checkpoint(project)
    assert not (project / "models/adapter").exists()

    resumed = train(project)
    assert "resumes from" in resumed.stdout
    assert sha256(project / ADAPTER) == sha256(trained / ADAPTER)
    logged = [file.relative_to(trained) for file in (trained / "reports/train/plots").rglob("*.tsv")]
    assert len(logged) == 3
    assert all((project / file).read_bytes() == (trained / file).read_bytes() for file in logged)
    assert not list((project / "models/checkpoints").iterdir())


def test_the_adapter_says_what_it_was_trained_from(trained: Path) -> None:
    record = json.loads((trained / "models/adapter/training.json").read_text(encoding="utf-8"))
    revision = folder_digest(trained / "models/base-tiny")
    assert record["base_model"] == record["merge_base"] == {"name": "models/base-tiny", "revision": revision}
    assert record["data"]["train_sha256"] == sha256(trained / "data/chatml/train.jsonl")
    assert record["data"]["eval_sha256"] == sha256(trained / "data/chatml/eval.jsonl")
    assert record["lora"]["r"] == 16
    assert (record["train"]["epochs"], record["train"]["precision"]) == (3, "float32")
    assert (trained / "models/adapter/chat_template.jinja").is_file()


def test_the_losses_are_logged_once_a_step_and_once_an_epoch(trained: Path) -> None:
    plots = trained / "reports/train/plots/metrics"
    # Five examples in effective batches of four are two steps an epoch.
    for name, steps in (("train/loss", range(1, 7)), ("learning_rate", range(1, 7)), ("eval/loss", (2, 4, 6))):
        header, *lines = (plots / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == f"step\t{name.split('/')[-1]}"
        assert [int(line.split("\t")[0]) for line in lines] == list(steps)
    metrics = json.loads((trained / "reports/train/metrics.json").read_text(encoding="utf-8"))
    assert metrics["tokens_per_second"] > 0 and metrics["peak_memory_gib"] > 0


def test_a_row_is_shown_with_its_mask_before_the_first_step(trained: Path) -> None:
    lines = (trained / "stdout").read_text(encoding="utf-8").splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("  one row: "))
    assert lines[place + 1].startswith("    not trained: ...")
    assert lines[place + 1].endswith("<|im_start|>assistant\\n'")
    assert "epic_id" in lines[place + 2] and lines[place + 2].endswith("<|im_end|>'")
    assert any(line.startswith("  6 steps, eval loss ") for line in lines[place:])


def test_an_optimizer_that_needs_a_gpu_is_refused_without_one(project: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    set_knob(project, "optimizer", "paged_adamw_8bit")
    done = train(project)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("params.yaml: train.optimizer: paged_adamw_8bit needs a GPU")
    assert not (project / "models/adapter").exists()


def test_weights_other_than_the_pinned_ones_are_refused(project: Path) -> None:
    set_knob(project, "train_revision", "'0000000000000000'")
    done = train(project)
    assert done.returncode == 1
    assert "params.yaml pins base_model.train_revision to 0000000000000000" in done.stderr


def test_after_a_kill_a_changed_param_starts_afresh_and_a_changed_memory_limit_goes_on(project: Path) -> None:
    kill_after_the_first_checkpoint(project)
    set_knob(project, "memory_limit_gib", "8.0")
    going_on = checkpoints_of(project)
    set_knob(project, "r", "4")
    assert checkpoints_of(project) != going_on
    assert going_on in {folder.name for folder in (project / "models/checkpoints").iterdir()}
    done = train(project)
    assert "  starts," in done.stdout and done.returncode == 0, done.stderr[-2000:]


def checkpoints_of(project: Path) -> str:
    """The name of the checkpoints' folder that a training with this project's params would use."""
    code = (
        "from stages.train_lora import *; params = load_params(); "
        "base = resolve_base(params.base_model.train, None, 'base_model.train'); "
        "print(checkpoint_folder(params, base).name)"
    )
    asked = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def test_a_full_disk_is_told_in_one_line_and_leaves_no_part_of_a_checkpoint_or_an_adapter(project: Path) -> None:
    small = project / "models/checkpoints"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        done = train(project)
        left = list(small.glob("*/checkpoint-*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 1
    assert re.match(r"models/checkpoints/\w+: the disk is full: ", done.stderr.strip().splitlines()[-1])
    assert "Traceback" not in done.stderr
    assert left == []
    assert not (project / "models/adapter").exists()


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import stages.train_lora as stage
from transformers import TrainerCallback

class Squeeze(TrainerCallback):
    def on_save(self, args, state, control, **_):
        import psutil
        room = psutil.Process().memory_info().vms + 4 * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (room, room))

made = stage.make_trainer
def with_squeeze(*given):
    trainer = made(*given)
    trainer.add_callback(Squeeze())
    # The first step after the first checkpoint asks for more than there is left.
    import torch
    step = trainer.training_step
    def greedy(*its, **named):
        if trainer.state.global_step == 2:
            torch.empty(2**30)
        return step(*its, **named)
    trainer.training_step = greedy
    return trainer
stage.make_trainer = with_squeeze
stage.main()
"""


def test_running_out_of_memory_in_a_step_is_told_in_one_line_and_keeps_the_checkpoint(project: Path) -> None:
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    done = subprocess.run(command, cwd=project, env=ONE_THREAD, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("train_lora: out of memory in step 3 of 6: ")
    assert "Set train.memory_limit_gib to " in said
    assert "Traceback" not in done.stderr
    assert list((project / "models/checkpoints").glob("*/checkpoint-2/trainer_state.json"))


def test_a_second_repro_says_who_is_at_work_and_after_a_kill_the_next_one_resumes(tmp_path: Path) -> None:
    write_repository(tmp_path)
    set_knob(tmp_path, "epochs", "4")
    environment = ONE_THREAD | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    first = subprocess.Popen(
        ["dvc", "repro", "train_lora"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not list((tmp_path / "models").glob("checkpoints/*/checkpoint-*/XXH128SUMS")):
            assert first.poll() is None, "it ended before anything could be seen"
            time.sleep(0.01)
        said = run("dvc", "repro", "train_lora", cwd=tmp_path, fails=True)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert f"(PID {first.pid}): " in said and "dvc repro train_lora" in said
    assert not (tmp_path / "models/adapter").exists()
    assert "  resumes from " in run("dvc", "repro", "train_lora", cwd=tmp_path)
