"""presets/: every file is a whole params.yaml, and each says what the README promises of it."""

from math import ceil
from pathlib import Path

import pytest

from stages.shared.params import load_params

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


def test_there_are_presets_for_three_sizes_of_gpu() -> None:
    assert [preset.stem for preset in PRESETS] == ["qwen14b-12gb", "qwen14b-24gb", "qwen14b-80gb"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_is_a_whole_params_file_for_a_4_bit_base_and_its_16_bit_twin(preset: Path) -> None:
    params = load_params(preset)
    assert params.base_model.train == "unsloth/Qwen2.5-Coder-14B-Instruct-bnb-4bit"
    assert params.base_model.merge == "unsloth/Qwen2.5-Coder-14B-Instruct"
    assert params.train.load_in_4bit
    assert params.train.optimizer == "paged_adamw_8bit"


def test_the_24_gb_preset_takes_39_steps_over_the_104_examples() -> None:
    train = load_params(ROOT / "presets/qwen14b-24gb.yaml").train
    examples = len((ROOT / "data/epics.jsonl").read_text(encoding="utf-8").splitlines())
    assert train.epochs * ceil(examples / train.effective_batch_size) == 39
    assert (train.max_seq_length, train.warmup_steps, train.learning_rate) == (4096, 5, 2e-4)
    assert (train.lr_scheduler, train.weight_decay, train.seed, train.logging_steps) == ("linear", 0.01, 3407, 1)


def test_the_24_gb_preset_tunes_all_seven_linears_and_the_12_gb_one_attention_alone() -> None:
    wide, narrow = (load_params(ROOT / f"presets/qwen14b-{size}.yaml") for size in ("24gb", "12gb"))
    assert (wide.lora.r, wide.lora.alpha, wide.lora.dropout, len(wide.lora.target_modules)) == (16, 16, 0.0, 7)
    assert (narrow.lora.r, narrow.lora.target_modules) == (8, ["q_proj", "k_proj", "v_proj", "o_proj"])
    assert (narrow.train.max_seq_length, narrow.train.effective_batch_size) == (2048, 4)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_a_preset_explains_every_knob_that_params_yaml_explains(preset: Path) -> None:
    assert _knobs(preset).keys() == _knobs(ROOT / "params.yaml").keys()


def _knobs(file: Path) -> dict[str, str]:
    """Knobs with a comment on their line: name to comment."""
    lines = (line.partition("#") for line in file.read_text(encoding="utf-8").splitlines())
    return {knob.partition(":")[0].strip(): comment for knob, _, comment in lines if knob.startswith("  ") and comment}
