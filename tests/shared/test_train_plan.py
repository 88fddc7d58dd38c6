"""train_plan.py: which plan is chosen, what it costs, and the memory estimate against a real forward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from peft import LoraConfig, get_peft_model
from torch.utils.data import BatchSampler
from transformers import AutoModelForCausalLM

from stages.shared.params import Params, load_params
from stages.shared.train_plan import (
    GIB,
    Machine,
    Plan,
    Shape,
    epoch_order,
    make_plan,
    memory,
    micro_batch_tokens,
    read_shape,
    step_seconds,
)
from tests.tiny_model import write_model

ROOT = Path(__file__).parents[2]
# Qwen2.5-14B's config.json.
QWEN_14B = Shape(48, 5120, 13824, 5120, 1024, 152064, tied=False, four_bit=True)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LENGTHS = [700 + (index * 277) % 801 for index in range(104)]


def params_with(preset: str = "qwen14b-24gb", **train: Any) -> Params:
    params = load_params(ROOT / f"presets/{preset}.yaml")
    return params.model_copy(update={"train": params.train.model_copy(update=train)})


def plan_on(gib: float, flops: float = 790e12, shape: Shape = QWEN_14B, **train: Any) -> Plan:
    return make_plan(params_with(**train), shape, Machine("cuda", gib * GIB, flops), LENGTHS, 2)


@pytest.mark.parametrize("gib", [12, 16, 24, 48, 80, 140])
def test_every_plan_keeps_the_effective_batch_and_fits(gib: int) -> None:
    plan = plan_on(gib)
    assert plan.micro_batch_size * plan.accumulation == 8
    assert plan.peak < gib * GIB


def test_more_memory_never_makes_a_step_slower() -> None:
    seconds = [plan_on(gib).seconds for gib in (12, 14, 16, 20, 24, 32, 48, 80, 140)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 1.3 * seconds[-1]


def test_a_large_card_recomputes_nothing_and_a_24_gib_card_only_some_layers() -> None:
    assert plan_on(80).kept_layers == 48
    assert 5 < plan_on(24).kept_layers < 48


def test_a_slow_card_takes_smaller_micro_batches_that_need_less_recomputation() -> None:
    slow, fast = plan_on(23.5, flops=100e12), plan_on(23.5, flops=790e12)
    assert slow.micro_batch_size < fast.micro_batch_size
    assert slow.kept_layers > fast.kept_layers


def test_what_params_say_is_not_overruled() -> None:
    plan = plan_on(80, micro_batch_size=2, gradient_checkpointing="unsloth")
    assert (plan.micro_batch_size, plan.accumulation, plan.checkpointing, plan.kept_layers) == (2, 4, "unsloth", 0)
    plan = plan_on(140, micro_batch_size=4, gradient_checkpointing="none")
    assert (plan.micro_batch_size, plan.accumulation, plan.kept_layers) == (4, 2, 48)


def test_processes_share_the_effective_batch() -> None:
    plan = plan_on(80, num_processes=2)
    assert plan.micro_batch_size * plan.accumulation * 2 == 8


@pytest.mark.parametrize(("processes", "effective", "micro"), [(2, 16, "auto"), (2, 24, "auto"), (4, 8, 2), (8, 8, 1)])
def test_several_processes_train_every_example_once_an_epoch(processes: int, effective: int, micro: Any) -> None:
    plan = plan_on(80, num_processes=processes, effective_batch_size=effective, micro_batch_size=micro)
    assert sorted(shared_out(processes, plan.micro_batch_size)) == list(range(104))


@pytest.mark.parametrize(
    ("processes", "effective", "micro", "counts"),
    [(3, 24, "auto", "1 or 2 or 4 or 8"), (2, 16, 8, "1"), (4, 12, 3, "1")],
)
def test_processes_that_would_train_some_examples_twice_are_refused_with_the_counts_that_do_not(
    processes: int, effective: int, micro: Any, counts: str
) -> None:
    assert len(shared_out(processes, 1 if micro == "auto" else micro)) > 104, "what accelerate does to them"
    with pytest.raises(SystemExit, match=rf"train\.num_processes: {processes} .* 104 examples .* Set it to {counts}\."):
        plan_on(80, num_processes=processes, effective_batch_size=effective, micro_batch_size=micro)


def shared_out(processes: int, micro: int) -> list[int]:
    """What accelerate gives to all processes together in an epoch of 104 examples."""
    batches = BatchSampler(range(104), micro, drop_last=False)
    shards = [BatchSamplerShard(batches, processes, index) for index in range(processes)]
    return [index for shard in shards for batch in shard for index in batch]


def test_what_does_not_fit_is_refused_with_the_numbers_and_the_three_knobs_that_save_most() -> None:
    with pytest.raises(SystemExit) as refusal:
        plan_on(9)
    said = str(refusal.value)
    assert "14.8 billion weights and examples of up to 1494 tokens take 10.5 GiB at least, 8.5 GiB are there" in said
    assert said.count("saves") == 3
    assert "\n" not in said
    assert said.index("lora.target_modules: [q_proj, k_proj, v_proj, o_proj]") < said.index("lora.r: 8")


def test_the_first_knob_of_a_refusal_makes_it_fit() -> None:
    full = Shape(**(vars(QWEN_14B) | {"four_bit": False}))
    with pytest.raises(SystemExit, match=r"is saved by: train\.load_in_4bit: true"):
        plan_on(24, shape=full)
    assert plan_on(24, shape=QWEN_14B).peak < 24 * GIB


def test_the_memory_limit_is_named_where_it_is_what_binds() -> None:
    with pytest.raises(SystemExit, match=r"train\.memory_limit_gib is 9"):
        plan_on(9, memory_limit_gib=9)


@pytest.mark.parametrize("padded", [False, True])
def test_every_step_sees_the_same_examples_whatever_the_micro_batch(padded: bool) -> None:
    train = params_with().train
    steps = {}
    for micro in (1, 2, 4, 8):
        order = epoch_order(LENGTHS[:101], train, micro, 1, padded)
        assert sorted(order) == list(range(101))
        steps[micro] = [set(order[start : start + 8]) for start in range(0, 101, 8)]
    assert steps[1] == steps[2] == steps[4] == steps[8]


def test_epochs_are_shuffled_apart_and_repeatably() -> None:
    train = params_with().train
    first, second = (epoch_order(LENGTHS, train, 2, epoch, False) for epoch in (0, 1))
    assert first != second
    assert first == epoch_order(LENGTHS, train, 2, 0, False)
    assert first != epoch_order(LENGTHS, params_with(seed=1).train, 2, 0, False)


def test_an_effective_batch_is_dealt_out_evenly() -> None:
    train = params_with().train
    sizes = list(micro_batch_tokens(LENGTHS, train, 4, False))
    pairs = [abs(one - other) for one, other in zip(sizes[::2], sizes[1::2], strict=True)]
    assert max(pairs) < 0.12 * sum(LENGTHS) / len(LENGTHS) * 4
    assert sum(sizes) == 3 * sum(LENGTHS)


def test_padding_counts_as_tokens_and_is_kept_small() -> None:
    train = params_with().train
    padded, together = (sum(micro_batch_tokens(LENGTHS, train, 4, way)) for way in (True, False))
    unsorted_order = [LENGTHS[start : start + 4] for start in range(0, 104, 4)]
    assert together < padded < 3 * sum(4 * max(group) for group in unsorted_order)


def test_recomputation_and_offloading_cost_time_and_save_memory() -> None:
    machine, params = Machine("cuda", 80 * GIB, 790e12), params_with()
    times = [step_seconds(QWEN_14B, machine, 8864, 1, how, kept) for how, kept in KEPT]
    peaks = [sum(memory(params, QWEN_14B, "cuda", 2, 8864, how, kept).values()) for how, kept in KEPT]
    assert times == sorted(times)
    assert peaks == sorted(peaks, reverse=True)


KEPT = [("none", 48), ("full", 24), ("full", 0), ("unsloth", 0)]


def test_a_base_without_the_usual_sizes_is_refused_by_file_and_key(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 2, "num_attention_heads": 4}')
    with pytest.raises(SystemExit, match=r"config\.json: has no hidden_size"):
        read_shape(tmp_path, False)


def test_a_base_stored_in_four_bits_is_planned_in_four_bits(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    assert not read_shape(folder, False).four_bit
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"quantization_config": {},', 1))
    assert read_shape(folder, False).four_bit


@pytest.mark.parametrize("modules", [ATTENTION, [*ATTENTION, "gate_proj", "up_proj", "down_proj"]])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_activations_are_what_a_real_forward_pass_saves(tmp_path: Path, modules: list[str], autocast: bool) -> None:
    folder, tokens = write_model(tmp_path, tied=False), 400
    dtype = torch.bfloat16 if autocast else torch.float32
    auto: Any = AutoModelForCausalLM
    model = get_peft_model(auto.from_pretrained(folder, dtype=dtype), LoraConfig(r=8, target_modules=modules)).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), hooks:
        model.base_model.model.model(input_ids=torch.randint(3, 400, (1, tokens)))
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    params = params_with()
    params = params.model_copy(update={"lora": params.lora.model_copy(update={"target_modules": modules, "r": 8})})
    parts = memory(params, read_shape(folder, False), "cpu", 2 if autocast else 4, tokens, "none", 2)
    assert parts["activations"] == pytest.approx(measured, rel=0.25)
