"""The losses that training reports: real runs on a tiny random model, against a computation of their own."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.format_chatml import format_row
from stages.shared.chatml import Encoder
from stages.shared.params import load_params
from stages.shared.train_plan import epoch_order
from tests.tiny_model import SENTENCES, write_model

ROOT = Path(__file__).parents[1]
MICRO_BATCHES = (8, 4, 1)
ADAPTER = "adapter.safetensors"
KNOBS = {
    "epochs": 2,
    "learning_rate": 0.01,
    "warmup_steps": 0,
    "effective_batch_size": 8,
    "max_seq_length": 512,
    "precision": "float32",
    "loss_on": "answer",
    "keep_best": False,
    "logging_steps": 1,
}
RUN_ALL = f"""
import json, shutil
import stages.train_lora as stage

def with_micro(size):
    return params.model_copy(update={{"train": params.train.model_copy(update={{"micro_batch_size": size}})}})

params = stage.load_params()
said = {{"curves": {{}}, "beside": {{}}}}
for micro in {MICRO_BATCHES}:
    stage.run(with_micro(micro))
    tables = stage.REPORT / "plots/metrics"
    said["curves"][micro] = {{
        name: [float(line.split("\\t")[1]) for line in (tables / f"{{name}}.tsv").read_text().splitlines()[1:]]
        for name in ("train/loss", "eval/loss")
    }}
shutil.copyfile(stage.ADAPTER / "adapter_model.safetensors", "{ADAPTER}")

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

params = with_micro(2)
base = stage.resolve_base(params.base_model.train, None, "base_model.train")
rows = {{split: [stage.example(row, "answer") for row in stage.read_rows(split)] for split in ("train", "eval")}}
plan = stage.choose_plan(params, base, "float32", [len(row["input_ids"]) for row in rows["train"]])
trainer = stage.make_trainer(
    params, plan, "float32", stage.load_model(params, base, "float32", plan), rows, stage.CHECKPOINTS / "none", []
)
other, judged = rows["train"][3], rows["train"][9]
marked = other | {{"input_ids": [7 if 3 < at < 20 else id for at, id in enumerate(other["input_ids"])]}}
silent = [stage.IGNORED] * len(other["labels"])

pad = trainer.processing_class.pad_token_id
collations = {{
    "padded": DataCollatorForLanguageModeling(pad),
    "padding-free": stage.aligned(DataCollatorForLanguageModeling(pad, padding_free=True), pad),
    "of this machine": trainer.data_collator,
}}
for name, collate in collations.items():
    def loss(*examples):
        batch = trainer._prepare_inputs(collate([dict(example) for example in examples]))
        return trainer.compute_loss(trainer.model.eval(), batch).item()

    said["beside"][name] = {{
        "alone": loss(judged),
        "after": loss(other | {{"labels": silent}}, judged),
        "after the marker": loss(marked | {{"labels": silent}}, judged),
        "before the marker": loss(judged, marked | {{"labels": silent}}),
        "other": loss(other),
        "marked": loss(marked),
    }}
with open("said.json", "w") as out:
    json.dump(said, out)
"""


def row(number: int) -> dict[str, Any]:
    """An Epic whose prompt and answer have lengths of their own: equal ones would hide a wrong mean."""
    words = " ".join(SENTENCES).split()
    draw = random.Random(number)
    context, title = (" ".join(draw.choices(words, k=draw.randint(1, 24))) for _ in range(2))
    return {
        "input": {"context": context, "requerimientos": [SENTENCES[number % 3]]},
        "output": {"epic_id": f"EPIC-{number:03d}", "title": title},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base, 19 rows to train on (two whole effective batches and a part of one) and 5 held out."""
    root = tmp_path_factory.mktemp("loss")
    (root / "stages").symlink_to(ROOT / "stages")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] |= {"train": "base", "train_revision": None, "merge": "base", "merge_revision": None}
    params["train"] |= KNOBS
    yaml.dump(params, root / "params.yaml")
    encoder = Encoder(AutoTokenizer.from_pretrained(write_model(root / "base")))
    (root / "data/chatml").mkdir(parents=True)
    for split, numbers in (("train", range(1, 20)), ("eval", range(20, 25))):
        lines = [json.dumps(format_row(row(number), "Eres un PM.", encoder)) + "\n" for number in numbers]
        (root / f"data/chatml/{split}.jsonl").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def said(project: Path) -> Any:
    """What the runs reported."""
    command = [sys.executable, "-c", RUN_ALL]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # a model this small only waits for a second one
    done = subprocess.run(command, cwd=project, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for micro in MICRO_BATCHES:
        assert f"{8 // micro} x {micro} examples a step" in done.stdout
    return json.loads((project / "said.json").read_text())


def rows_of(project: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (project / f"data/chatml/{split}.jsonl").read_text().splitlines()]


def base_model(project: Path) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(project / "base", dtype=torch.float32, attn_implementation="eager").eval()


def cross_entropy(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """-log p of each token of a row's answer, float64, by a forward pass of that row alone."""
    with torch.no_grad():
        logits = model(torch.tensor([row["prompt_ids"] + row["answer_ids"]])).logits[0].double()
    before = logits[len(row["prompt_ids"]) - 1 : -1]
    chosen = before.gather(1, torch.tensor(row["answer_ids"]).unsqueeze(1)).squeeze(1)
    return before.logsumexp(1) - chosen


def test_the_losses_of_a_step_do_not_depend_on_how_it_is_cut_into_micro_batches(said: Any) -> None:
    curves = [said["curves"][str(micro)]["train/loss"] for micro in MICRO_BATCHES]
    assert len(curves[0]) == 6 and curves[0][-1] < 0.8 * curves[0][0]  # losses that stand still would agree as well
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_the_eval_loss_does_not_depend_on_the_micro_batch(said: Any) -> None:
    curves = [said["curves"][str(micro)]["eval/loss"] for micro in MICRO_BATCHES]
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], rel=1e-5)


def test_the_first_step_s_loss_is_the_cross_entropy_per_trained_token_of_its_whole_batch(
    said: Any, project: Path
) -> None:
    rows, model = rows_of(project, "train"), base_model(project)
    lengths = [len(row["prompt_ids"]) + len(row["answer_ids"]) for row in rows]
    order = epoch_order(lengths, load_params(project / "params.yaml").train, 1, 0, True)
    expected = torch.cat([cross_entropy(model, rows[index]) for index in order[:8]]).mean().item()
    assert said["curves"]["1"]["train/loss"][0] == pytest.approx(expected, rel=1e-5)


def test_the_eval_loss_is_the_mean_over_the_held_out_rows_of_their_cross_entropy_per_answer_token(
    said: Any, project: Path
) -> None:
    model, adapter = base_model(project), load_file(project / ADAPTER)
    scale = load_params(project / "params.yaml").lora.alpha / load_params(project / "params.yaml").lora.r
    weights = model.state_dict()
    for name in (name for name in adapter if ".lora_A." in name):
        change = scale * adapter[name.replace("lora_A", "lora_B")] @ adapter[name]
        weights[name.removeprefix("base_model.model.").replace(".lora_A", "")] += change
    losses = [cross_entropy(model, row).mean() for row in rows_of(project, "eval")]
    assert said["curves"]["1"]["eval/loss"][-1] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("collation", ["padded", "padding-free", "of this machine"])
def test_no_example_sees_another_one_of_its_micro_batch(said: Any, collation: str) -> None:
    loss = said["beside"][collation]
    assert abs(loss["marked"] - loss["other"]) > 0.01  # the marker is one that can be seen
    assert loss["after the marker"] == loss["after"]
    for beside in ("after", "before the marker"):
        assert loss[beside] == pytest.approx(loss["alone"], rel=1e-6)
