"""kill -9 at any moment, and a disk that fills up: nothing half-written is left, and the next run ends as ever.

PM_SENIOR_KILLS=50 kills that often, over all stages in turn; PM_SENIOR_SEED chooses the moments.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages import merge, quantize_gguf
from stages.shared.base_model import folder_digest
from stages.shared.checksums import damage, write_sums
from tests.small_repository import ROOT, run
from tests.tiny_model import write_model

KILLS = int(os.environ.get("PM_SENIOR_KILLS", "3"))
SEED = int(os.environ.get("PM_SENIOR_SEED", "3407"))
STAGES = list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
IN_CI = ("validate", "quantize_gguf", "report")  # training and merge are killed in their own tests
CLOCK = ("tokens_per_second", "peak_memory_gib", "planned_memory_gib")


def outputs(folder: Path) -> dict[str, Any]:
    """Every output's bytes by name; of reports that the clock writes into, everything but its numbers."""
    found: dict[str, Any] = {}
    for part in ("data/validated", "data/chatml", "models/adapter", "models/merged", "models/gguf", "reports"):
        for file in sorted((folder / part).rglob("*")):
            if file.is_file():
                name, content = str(file.relative_to(folder)), file.read_bytes()
                found[name] = timeless(json.loads(content)) if file.suffix == ".json" else content
    found.pop("reports/evaluate/answers.html", None)  # shows the speed beside every score
    return found


def timeless(value: Any) -> Any:
    """A report without what a clock wrote."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in CLOCK}
    return value


def leftovers(folder: Path) -> list[str]:
    """What a stage writes under before it is whole."""
    parts = [folder / name for name in ("data", "models", "reports")]
    found = [path for part in parts for path in part.rglob("*") if "partial" in path.name]
    return [str(path) for path in [*found, *(folder / "models/checkpoints").glob("*")]]


def repro(folder: Path, stage: str) -> "subprocess.Popen[bytes]":
    """`dvc repro` of one stage by force, in a session of its own."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", stage],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_after_a_kill_at_any_moment_a_repro_ends_with_the_bytes_of_a_run_without_kills(finished: Path) -> None:
    expected = outputs(finished)
    assert len(expected) > 30
    chance = random.Random(SEED)
    stages = STAGES if len(STAGES) <= KILLS else IN_CI
    # About how long each runs, else 4; less once it was done sooner.
    seconds = {"train_lora": 15.0, "quantize_gguf": 8.0, "baseline": 8.0, "evaluate": 8.0}
    killed = 0
    for stage in itertools.cycle(stages):
        if killed == KILLS:
            break
        delay = chance.uniform(0.0, seconds.get(stage, 4.0))
        # Else DVC would fetch the killed stage's outputs from there.
        shutil.rmtree(finished / ".dvc/cache/runs", ignore_errors=True)
        process = repro(finished, stage)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"seed {SEED}, kill {killed}: {stage} after {delay:.2f} s", flush=True)
        else:  # it was done before the moment came
            seconds[stage] = delay
            continue
        said = run("dvc", "repro", cwd=finished)
        now = outputs(finished)
        assert now.keys() == expected.keys(), (stage, delay)
        assert [name for name in now if now[name] != expected[name]] == [], (stage, delay, said)
        assert leftovers(finished) == [], (stage, delay)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder in which merge and quantize_gguf run in a second."""
    base = write_model(tmp_path / "models/base", shards=True, num_hidden_layers=4)
    adapter, merged = tmp_path / "models/adapter", tmp_path / "models/merged"
    adapter.mkdir()
    write_adapter(base, adapter)
    shutil.copytree(base, merged)
    write_sums(merged)
    shutil.copytree(ROOT / "stages", tmp_path / "stages")  # with what Numba has compiled
    (tmp_path / "data/chatml").mkdir(parents=True)
    for name in ("epics.jsonl", "epics_eval.jsonl"):
        shutil.copyfile(ROOT / "data" / name, tmp_path / "data" / name)
    for split in ("train", "eval"):
        (tmp_path / f"data/chatml/{split}.jsonl").write_text('{"prompt_ids": [1, 40, 300], "answer_ids": [77, 2]}\n')
    (tmp_path / "reports").mkdir()
    tokens = {"prompt": {"max": 100}, "answer": {"max": 120}, "total": {"max": 220}}
    (tmp_path / "reports/format_chatml.json").write_text(json.dumps({"tokens": tokens}))
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] |= {"merge": "models/base", "merge_revision": None}
    params["quantize_gguf"] |= {"methods": ["q8_0", "f16"], "damage_texts": 0}
    params["evaluate"]["methods"], params["gate"]["method"] = ["q8_0"], "q8_0"
    yaml.dump(params, tmp_path / "params.yaml")
    return tmp_path


def write_adapter(base: Path, adapter: Path) -> None:
    """A random adapter on one matrix, as train_lora leaves one."""
    import torch
    from safetensors.torch import save_file

    name = "base_model.model.model.layers.0.mlp.up_proj"
    pair = {f"{name}.lora_A.weight": torch.randn(4, 256), f"{name}.lora_B.weight": torch.randn(512, 4)}
    save_file(pair, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(base / file, adapter / file)
    training = json.loads((base / "training.json").read_text())
    training["merge_base"] = {"name": "models/base", "revision": folder_digest(base)}
    (adapter / "training.json").write_text(json.dumps(training))
    write_sums(adapter)


# At the given write to a file under the unfinished output, either the process is killed or the disk fills up.
HARMED = """
import os, shutil, signal, sys
from pathlib import Path
stage, harm, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
module = __import__(f"stages.{stage}", fromlist=["main"])
begun = module.check_room

def room(*given):
    begun(*given)
    folder, count = given[-1] if isinstance(given[-1], Path) else given[1], 0

    def note(event, arguments):
        nonlocal count
        if event != "open" or ".partial" not in str(arguments[0]) or "filler" in str(arguments[0]):
            return
        count += 1
        if count == at and harm == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == at and harm == "fill":
            free = shutil.disk_usage(folder).free
            with open(folder.parent / "filler", "wb") as filler:
                filler.write(bytes(max(0, free - 100_000)))

    sys.addaudithook(note)

module.check_room = room
module.main()
"""


def harmed(project: Path, stage: str, harm: str, at: int) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HARMED, stage, harm, str(at)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def run_here(project: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    {"merge": merge, "quantize_gguf": quantize_gguf}[stage].main()


# The second shard of merge; Modelfile, after all GGUFs.
@pytest.mark.parametrize(("stage", "at"), [("merge", 2), ("quantize_gguf", 3)])
def test_a_kill_in_the_middle_of_writing_leaves_no_output_and_the_next_run_is_clean(
    project: Path, stage: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = project / {"merge": "models/merged", "quantize_gguf": "models/gguf"}[stage]
    if stage == "merge":
        shutil.rmtree(target)  # as DVC does before it runs a stage
    assert harmed(project, stage, "kill", at).returncode == -signal.SIGKILL
    assert not target.exists()
    assert list(target.with_name(f".{target.name}.partial").iterdir()), "it was killed before it wrote anything"
    run_here(project, stage, monkeypatch)
    assert not list(target.parent.glob(".*"))
    assert damage(target) is None
    again = content(target)
    run_here(project, stage, monkeypatch)
    assert content(target) == again


@pytest.fixture
def small_disk(project: Path) -> Iterator[Path]:
    """The project's models/ on a small disk of its own."""
    models = project / "models"
    aside = models.rename(project / "aside")
    models.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(models)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        shutil.copytree(aside, models, dirs_exist_ok=True)
        yield models
    finally:
        subprocess.run(["umount", str(models)], check=True)


# The second shard, the second GGUF: its tensors no longer fit.
@pytest.mark.parametrize(("stage", "at"), [("merge", 2), ("quantize_gguf", 2)])
def test_a_disk_that_fills_up_is_told_in_one_line_and_leaves_no_part_of_an_output(
    project: Path, small_disk: Path, stage: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = small_disk / {"merge": "merged", "quantize_gguf": "gguf"}[stage]
    before = content(target)
    done = harmed(project, stage, "fill", at)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"models/{target.name}: the disk is full: no room is left in ")
    assert content(target) == before
    assert not list(small_disk.glob(".*"))
    (small_disk / "filler").unlink()
    run_here(project, stage, monkeypatch)
    assert damage(target) is None
