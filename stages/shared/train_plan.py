"""How to train within the memory at hand: micro-batches and recomputed layers, from shapes and lengths alone.

The peak is counted tensor by tensor as Unsloth's kernels keep them (on a CPU: as transformers and PEFT do), the time
from the matrix multiplications, the dequantization and the launches; benchmarks/train_14b.py holds both against a run.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.shared.params import Params, TrainParams

GIB = 2**30
_MARGIN = 0.95  # the share of the free memory to plan with: the allocator's blocks never fit to the byte
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # per weight: four bits, and a doubly quantized scale for each block of 64
_LOGITS_BYTES = 0.2 * GIB  # the chunk of logits that Unsloth's fused cross-entropy holds at a time, with its gradient
_CUDA_WORKSPACE = 0.15 * GIB  # cuBLAS's workspaces and the allocator's rounding
_CPU_PROCESS = 1.1 * GIB  # Python with torch, transformers and TRL before any weight is read
# Time, relative to one forward pass through the linear layers; one optimizer step on an H200 is where they are from.
_PASSES = 3.05  # forward and backward with everything between the matrix multiplications
_RECOMPUTE = 1.35
_OFFLOAD = 0.5
_FLOP_PER_BYTE = 200  # a card's matrix throughput over its memory bandwidth: 150 to 250 from an RTX 4090 to an H200
_LAUNCH_SECONDS = 0.004  # the host's time to launch one layer's kernels in one direction
_OVERLAP = 1.7  # GPU and host overlap in part: the exponent of the norm of both times, 1 would be not at all


@dataclass(frozen=True)
class Shape:
    """What a model's config.json says about its size; all counts are of elements."""

    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool
    four_bit: bool

    def linears(self) -> dict[str, tuple[int, int]]:
        """Columns in and rows out of one layer's linears."""
        return {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key_value),
            "v_proj": (self.hidden, self.key_value),
            "o_proj": (self.query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_weights(self) -> int:
        """Weights in all layers' linears."""
        return self.layers * sum(columns * rows for columns, rows in self.linears().values())

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding and of the head, once if they are one."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)


@dataclass(frozen=True)
class Machine:
    """What one process trains with.

    Attributes:
        device: "cuda" or "cpu".
        memory: bytes that are free for it.
        flops: its matrix multiplications in 16 bits, in FLOP/s; a CPU's do not matter to the choice.

    """

    device: str
    memory: float
    flops: float


@dataclass(frozen=True)
class Plan:
    """One way to take an optimizer step.

    Attributes:
        micro_batch_size: examples per forward pass and process.
        accumulation: forward passes per optimizer step.
        checkpointing: how recomputed layers keep their input: "none" are recomputed, "full" or "unsloth" (on the host).
        kept_layers: layers that keep their activations; the others are recomputed in the backward pass.
        padded: whether the shorter examples of a micro-batch are padded to the longest (else they are one row).
        tokens: in the largest micro-batch of all epochs; padding counts.
        parts: what the peak consists of, in bytes.
        seconds: a step's estimated time; only good for comparing plans.

    """

    micro_batch_size: int
    accumulation: int
    checkpointing: str
    kept_layers: int
    padded: bool
    tokens: int
    parts: dict[str, float]
    seconds: float

    @property
    def peak(self) -> float:
        """Estimated peak memory in bytes."""
        return sum(self.parts.values())


def read_shape(folder: Path, load_in_4bit: bool) -> Shape:
    """The sizes in a model folder's config.json; a base that is stored in 4 bits is trained in 4 bits.

    Raises:
        SystemExit: a size is missing, naming the file and the key.

    """
    file = folder / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))

    def number(key: str) -> int:
        value = config.get(key)
        if not isinstance(value, int):
            raise SystemExit(f"{file}: has no {key}. Use a base of the Llama or Qwen family.")
        return value

    heads = number("num_attention_heads")
    head = config.get("head_dim") or number("hidden_size") // heads
    return Shape(
        layers=number("num_hidden_layers"),
        hidden=number("hidden_size"),
        intermediate=number("intermediate_size"),
        query=heads * head,
        key_value=(config.get("num_key_value_heads") or heads) * head,
        vocabulary=number("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
        four_bit=load_in_4bit or "quantization_config" in config,
    )


def machine_here(train: TrainParams) -> Machine:
    """This process's GPU if there is one, else its share of the free host memory."""
    import torch

    if torch.cuda.is_available():
        free, flops = torch.cuda.mem_get_info()[0], _matmul_flops()
    else:
        import psutil

        free, flops = psutil.virtual_memory().available / train.num_processes, 1e12
    limit = float("inf") if train.memory_limit_gib is None else train.memory_limit_gib * GIB
    return Machine("cuda" if torch.cuda.is_available() else "cpu", min(free, limit), flops)


def _matmul_flops() -> float:
    import torch

    size, repeats = 4096, 20
    matrix = torch.randn(size, size, dtype=torch.bfloat16, device="cuda")
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    for _ in range(3):
        matrix @ matrix
    begin.record()
    for _ in range(repeats):
        matrix @ matrix
    end.record()
    torch.cuda.synchronize()
    del matrix
    torch.cuda.empty_cache()
    return float(2 * size**3 * repeats / (begin.elapsed_time(end) / 1000))


def epoch_order(lengths: Sequence[int], train: TrainParams, micro: int, epoch: int, padded: bool) -> list[int]:
    """The order of the examples in an epoch: shuffled by seed, and level within each effective batch.

    The members of an effective batch do not depend on `micro`. They are dealt out to its micro-batches so that the
    largest is as small as can be: by their sum, or, where shorter ones are padded, by length.
    """
    order = list(range(len(lengths)))
    random.Random(train.seed + epoch).shuffle(order)
    size = train.effective_batch_size
    batches = (order[start : start + size] for start in range(0, len(order), size))
    return [index for batch in batches for group in _dealt(batch, lengths, micro, padded) for index in group]


def _dealt(batch: list[int], lengths: Sequence[int], micro: int, padded: bool) -> list[list[int]]:
    longest_first = sorted(batch, key=lambda index: -lengths[index])
    if padded:
        return [longest_first[start : start + micro] for start in range(0, len(batch), micro)]
    room = [min(micro, len(batch) - start) for start in range(0, len(batch), micro)]
    groups: list[list[int]] = [[] for _ in room]
    for index in longest_first:
        open_groups = [group for group, seats in zip(groups, room, strict=True) if len(group) < seats]
        min(open_groups, key=lambda group: sum(lengths[each] for each in group)).append(index)
    return groups


def micro_batch_tokens(lengths: Sequence[int], train: TrainParams, micro: int, padded: bool) -> Iterator[int]:
    """The size of every micro-batch of the whole training, in tokens; padding counts."""
    for epoch in range(train.epochs):
        order = epoch_order(lengths, train, micro, epoch, padded)
        for start in range(0, len(order), micro):
            batch = [lengths[index] for index in order[start : start + micro]]
            yield len(batch) * max(batch) if padded else sum(batch)


def memory(
    params: Params, shape: Shape, device: str, element: int, tokens: int, checkpointing: str, kept: int
) -> dict[str, float]:
    """The parts of the peak in bytes, for the largest micro-batch.

    Args:
        params: the adapter's and the optimizer's knobs.
        shape: of the base.
        device: "cuda" or "cpu".
        element: bytes of an activation.
        tokens: in the micro-batch.
        checkpointing: "none", "full" or "unsloth".
        kept: layers that keep their activations.

    """
    linears = shape.linears()
    adapter = shape.layers * params.lora.r * sum(sum(linears[name]) for name in set(params.lora.target_modules))
    tuned_mlp = bool({"gate_proj", "up_proj", "down_proj"} & set(params.lora.target_modules))
    # A paged optimizer keeps its state in managed memory, which gives way to what PyTorch asks for.
    state = {"adamw_torch": 8, "adamw_8bit": 2, "paged_adamw_8bit": 0}[params.train.optimizer]
    h, q, kv, i = shape.hidden, shape.query, shape.key_value, shape.intermediate
    if device == "cuda":
        # Two residuals, two norms' outputs; queries, keys, values and attention's output; gate and up.
        kept_bytes = element * (4 * h + 2 * q + 2 * kv + (2 if tuned_mlp else 3) * i)
        working = tokens * element * (i + 3 * h)
        logits = 2 * tokens * element * h + _LOGITS_BYTES
        fixed = _CUDA_WORKSPACE + (2 * i * h if shape.four_bit else 0)
    else:
        # Stock modules; under autocast the norms also keep float32 copies, the linears their cast inputs.
        cast = element == 2
        kept_bytes = element * ((4 + cast) * h + (2 + cast) * q + 2 * kv + (4 if tuned_mlp else 3) * i) + 8 * h * cast
        working = tokens * 4 * (2 * i + 3 * h)
        logits = tokens * (4 + 4 + element) * min(shape.vocabulary, 16384)
        fixed = _CPU_PROCESS
    boundary = {"none": 0, "full": shape.layers - kept, "unsloth": 2}[checkpointing] * tokens * element * h
    return {
        "weights": shape.linear_weights * (_NF4_BYTES if shape.four_bit else element)
        + shape.embedding_weights * element,
        "adapter and optimizer": adapter * (4 + 4 + state),
        "activations": max(kept, 1) * tokens * kept_bytes + boundary + 2 * tokens * element * h,
        "working memory": fixed + max(working, logits),
    }


def step_seconds(
    shape: Shape, machine: Machine, tokens: float, accumulation: int, checkpointing: str, kept: int
) -> float:
    """The estimated time of one optimizer step over `tokens` tokens, in seconds."""
    recomputed = 1 - kept / shape.layers
    forward = 2 * (shape.linear_weights + shape.vocabulary * shape.hidden) * tokens / machine.flops
    gpu = forward * (_PASSES + recomputed * (_RECOMPUTE + (_OFFLOAD if checkpointing == "unsloth" else 0)))
    if machine.device == "cpu":
        return gpu
    unpacked = shape.linear_weights * 2.5 if shape.four_bit else 0.0
    gpu += accumulation * (2 + recomputed) * unpacked / (machine.flops / _FLOP_PER_BYTE)
    host = accumulation * shape.layers * _LAUNCH_SECONDS * (2 + recomputed)
    return float((gpu**_OVERLAP + host**_OVERLAP) ** (1 / _OVERLAP))


def make_plan(params: Params, shape: Shape, machine: Machine, lengths: Sequence[int], element: int) -> Plan:
    """The fastest plan that fits, the smallest of equally fast ones.

    Args:
        params: the whole params file.
        shape: of the base.
        machine: what there is.
        lengths: tokens of every training example.
        element: bytes of an activation.

    Raises:
        SystemExit: not even the smallest plan fits, with the numbers and the three knobs that help most; or the
            processes cannot share the examples evenly.

    """
    if not _micro_batches(params.train, len(lengths)):
        raise SystemExit(_uneven(params.train, len(lengths)))
    plans = list(_plans(params, shape, machine, lengths, element))
    fitting = [plan for plan in plans if plan.peak <= _MARGIN * machine.memory]
    if not fitting:
        raise SystemExit(_refusal(params, shape, machine, lengths, element, min(plan.peak for plan in plans)))
    return min(fitting, key=lambda plan: (plan.seconds, plan.peak))


def _plans(params: Params, shape: Shape, machine: Machine, lengths: Sequence[int], element: int) -> Iterator[Plan]:
    train = params.train
    share = train.effective_batch_size // train.num_processes
    padded = machine.device == "cpu"
    for micro in _micro_batches(train, len(lengths)):
        sizes = list(micro_batch_tokens(lengths, train, micro, padded))
        largest, per_step = max(sizes), sum(sizes) / len(sizes) * share / micro
        for checkpointing, kept in _checkpointings(train.gradient_checkpointing, shape.layers, machine.device):
            yield Plan(
                micro,
                share // micro,
                checkpointing,
                kept,
                padded,
                largest,
                memory(params, shape, machine.device, element, largest, checkpointing, kept),
                step_seconds(shape, machine, per_step, share // micro, checkpointing, kept),
            )


def _micro_batches(train: TrainParams, examples: int) -> list[int]:
    """The micro-batch sizes to choose from; several processes take only what leaves no examples over.

    accelerate fills what is left over up with the first examples of the epoch, which would be trained twice.
    """
    share, wanted = train.effective_batch_size // train.num_processes, train.micro_batch_size
    sizes = [wanted] if wanted != "auto" else [size for size in range(1, share + 1) if share % size == 0]
    return [size for size in sizes if train.num_processes == 1 or examples % (size * train.num_processes) == 0]


def _uneven(train: TrainParams, examples: int) -> str:
    micro = 1 if train.micro_batch_size == "auto" else train.micro_batch_size
    even = math.gcd(train.effective_batch_size // micro, examples // micro if examples % micro == 0 else 1)
    counts = [str(count) for count in range(1, even + 1) if even % count == 0]
    return (
        f"params.yaml: train.num_processes: {train.num_processes} processes with {micro} examples at a time cannot "
        f"share {examples} examples evenly: some would be trained twice in an epoch. Set it to {' or '.join(counts)}."
    )


def _checkpointings(wanted: str, layers: int, device: str) -> list[tuple[str, int]]:
    if wanted == "none":
        return [("none", layers)]
    if wanted != "auto":
        return [(wanted, 0)]
    offloading = ["full", "unsloth"] if device == "cuda" else ["full"]
    return [("none", layers), *((how, kept) for how in offloading for kept in range(layers))]


def _refusal(
    params: Params, shape: Shape, machine: Machine, lengths: Sequence[int], element: int, smallest: float
) -> str:
    train, lora = params.train, params.lora
    attention = [name for name in lora.target_modules if name in ("q_proj", "k_proj", "v_proj", "o_proj")]
    shorter = [min(length, max(lengths) // 2) for length in lengths]
    changes: dict[str, tuple[Params, Shape, Sequence[int]]] = {
        "train.load_in_4bit: true": (params, Shape(**(vars(shape) | {"four_bit": True})), lengths),
        "train.micro_batch_size: auto": (_with(params, "train", micro_batch_size="auto"), shape, lengths),
        "train.gradient_checkpointing: auto": (_with(params, "train", gradient_checkpointing="auto"), shape, lengths),
        f"lora.r: {max(1, lora.r // 2)}": (_with(params, "lora", r=max(1, lora.r // 2)), shape, lengths),
        f"train.max_seq_length: {max(shorter)}, with examples as short": (params, shape, shorter),
    }
    if machine.device == "cuda":
        changes["train.optimizer: paged_adamw_8bit"] = (
            _with(params, "train", optimizer="paged_adamw_8bit"),
            shape,
            lengths,
        )
    if attention and len(attention) < len(lora.target_modules):
        changes[f"lora.target_modules: [{', '.join(attention)}]"] = (
            _with(params, "lora", target_modules=attention),
            shape,
            lengths,
        )
    saved = {
        change: smallest - min(plan.peak for plan in _plans(changed, its_shape, machine, its_lengths, element))
        for change, (changed, its_shape, its_lengths) in changes.items()
    }
    best = [change for change in sorted(saved, key=lambda change: -saved[change]) if saved[change] > 0][:3]
    room = _MARGIN * machine.memory
    limit = "" if train.memory_limit_gib is None else f" (train.memory_limit_gib is {train.memory_limit_gib})"
    weights = (shape.linear_weights + shape.embedding_weights) / 1e9
    helps = "; ".join(f"{change} (saves {saved[change] / GIB:.1f} GiB)" for change in best)
    return (
        f"train_lora: {weights:.1f} billion weights and examples of up to {max(lengths)} tokens take "
        f"{smallest / GIB:.1f} GiB at least, {room / GIB:.1f} GiB are there to plan with{limit}. "
        f"In params.yaml, the most is saved by: {helps}."
    )


def _with(params: Params, section: str, **values: Any) -> Params:
    return params.model_copy(update={section: getattr(params, section).model_copy(update=values)})


def describe(plan: Plan, shape: Shape, machine: Machine) -> str:
    """The plan and its estimate in one line."""
    recomputed = shape.layers - plan.kept_layers
    offloaded = " (their inputs on the host)" if plan.checkpointing == "unsloth" else ""
    parts = ", ".join(f"{name} {amount / GIB:.1f}" for name, amount in plan.parts.items())
    return (
        f"{plan.accumulation} x {plan.micro_batch_size} examples a step and process, at most {plan.tokens} tokens at "
        f"once; {recomputed} of {shape.layers} layers recomputed{offloaded}; estimated peak {plan.peak / GIB:.1f} of "
        f"{machine.memory / GIB:.1f} GiB ({parts})"
    )
