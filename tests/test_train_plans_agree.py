"""Whatever the plan, the same training: loss curves of real runs on the embedded base, side by side.

How a step is cut into micro-batches is in test_loss.py.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from stages.format_chatml import format_row
from stages.shared.chatml import Encoder
from stages.shared.params import load_params
from stages.shared.train_plan import GIB, Machine, make_plan, read_shape
from stages.shared.transfer import fastest_dtype

ROOT = Path(__file__).parent.parent
STEPS = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with 80 short conversations: two epochs of ten steps at an effective batch of eight."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "models").mkdir()
    (root / "models/base-tiny").symlink_to(ROOT / "models/base-tiny")
    encoder = Encoder(AutoTokenizer.from_pretrained(ROOT / "models/base-tiny"))
    rows = []
    for line in (ROOT / "data/epics.jsonl").read_text(encoding="utf-8").splitlines()[:80]:
        epic = json.loads(line)
        context = epic["input"]["context"][: 40 + len(rows)]
        brief = {"context": context, "requerimientos": epic["input"]["requerimientos"][:1]}
        output = {key: epic["output"][key] for key in ("epic_id", "title")}
        rows.append(json.dumps(format_row({"input": brief, "output": output}, "Eres un PM.", encoder)) + "\n")
    (root / "data/chatml").mkdir(parents=True)
    (root / "data/chatml/train.jsonl").write_text("".join(rows))
    (root / "data/chatml/eval.jsonl").write_text("".join(rows[:3]))
    return root


def losses(made: Path, folder: Path, **knobs: object) -> tuple[list[float], str]:
    """The training loss at every step of a run with these knobs, and what the run printed."""
    shutil.copytree(made, folder, symlinks=True)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] |= {"train_revision": None, "merge_revision": None}
    params["train"] |= {
        "epochs": 2,
        "effective_batch_size": 8,
        "logging_steps": 1,
        "loss_on": "conversation",
        "keep_best": False,
        **knobs,
    }
    yaml.dump(params, folder / "params.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "stages.train_lora"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return curve(folder, "train"), done.stdout


def curve(folder: Path, split: str) -> list[float]:
    """The loss at every step that it was taken at."""
    lines = (folder / f"reports/train/plots/metrics/{split}/loss.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [float(line.split("\t")[1]) for line in lines]


@pytest.fixture(scope="module")
def by_one(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after the notebook's way: one example at a time, eight times a step."""
    folder = tmp_path_factory.mktemp("one") / "by_one"
    _, said = losses(made, folder, micro_batch_size=1)
    assert "8 x 1 examples a step" in said
    return folder


@pytest.fixture(scope="module")
def one_by_one(by_one: Path) -> list[float]:
    taken = curve(by_one, "train")
    assert len(taken) == STEPS
    assert sum(taken[-5:]) < 0.95 * sum(taken[:5])  # it learns: curves that stand still would agree as well
    return taken


def test_two_processes_take_the_same_steps_with_the_same_losses_as_one(
    made: Path, tmp_path: Path, by_one: Path, one_by_one: list[float]
) -> None:
    taken, said = losses(made, tmp_path / "project", num_processes=2, micro_batch_size=2)
    assert "2 x 2 examples a step and process" in said
    assert said.count("  starts, in ") == 1
    assert taken == pytest.approx(one_by_one, rel=0.01)
    # Three held-out rows: no two processes can share them evenly.
    assert curve(tmp_path / "project", "eval") == pytest.approx(curve(by_one, "eval"), rel=0.01)


def test_layers_that_are_recomputed_give_the_losses_of_layers_that_are_kept(
    made: Path, tmp_path: Path, one_by_one: list[float]
) -> None:
    shape = read_shape(ROOT / "models/base-tiny", False)
    limit = _limit_that_recomputes(shape.layers // 2, made)
    taken, said = losses(made, tmp_path / "project", micro_batch_size=8, memory_limit_gib=limit)
    assert f"; {shape.layers // 2} of {shape.layers} layers recomputed; " in said
    assert taken == pytest.approx(one_by_one, rel=0.01)


def _limit_that_recomputes(layers: int, made: Path) -> float:
    """A memory limit in GiB under which the plan recomputes so many layers."""
    params = load_params(ROOT / "params.yaml")
    knobs = {"epochs": 2, "effective_batch_size": 8, "micro_batch_size": 8}
    params = params.model_copy(update={"train": params.train.model_copy(update=knobs)})
    shape = read_shape(ROOT / "models/base-tiny", False)
    rows = [json.loads(line) for line in (made / "data/chatml/train.jsonl").read_text().splitlines()]
    lengths = [len(row["prompt_ids"]) + len(row["answer_ids"]) for row in rows]
    element = 2 if fastest_dtype() == "bfloat16" else 4
    for limit in range(1024, 2048):  # MiB
        try:
            plan = make_plan(params, shape, Machine("cpu", limit / 1024 * GIB, 1e12), lengths, element)
        except SystemExit:
            continue
        if shape.layers - plan.kept_layers == layers:
            return limit / 1024
    raise AssertionError(f"no memory limit makes the plan recompute {layers} layers")
