"""Training at Qwen2.5-14B's size, side by side: a notebook's usual settings, the stock libraries, this project's plans.

    python -m benchmarks.train_14b make FOLDER      random weights of the exact shapes: FOLDER/16bit and FOLDER/4bit
    python -m benchmarks.train_14b run [--steps 5] FOLDER/4bit [VARIANT ...]

All variants take the same optimizer steps over the same 104 examples of 721 to 1,514 random tokens, with the loss on
all of them, at an effective batch of 8, each in a process of its own. A table of tokens/s, GPU-busy seconds of one
step (profiler), peak memory reserved by PyTorch and the plan's estimate of it comes last. Needs one NVIDIA GPU.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NOTEBOOK = {"micro_batch_size": 1, "gradient_checkpointing": "unsloth"}
VARIANTS: dict[str, dict[str, Any]] = {
    "notebook": NOTEBOOK,  # Unsloth with batch 1 x 8, every layer checkpointed and offloaded
    "stock": NOTEBOOK,  # TRL, PEFT and bitsandbytes with the same settings
    "ours": {},
    "ours-24": {"memory_limit_gib": 24.0},
    "ours-12": {"memory_limit_gib": 12.0},
}
WARM_UP = 2
SECONDS = 200  # for one variant, loading included
KINDS = {  # the first kind with a word that a kernel's name contains
    "dequantization": ("dequant",),
    "attention": ("flash", "fmha", "attention"),
    "loss": ("cross_entropy", "softmax", "logsumexp", "_ce_"),
    "matmul": ("gemm", "cutlass", "nvjet", "xmma", "matmul", "splitk"),
    "norm, rope, swiglu": ("rms", "layernorm", "rope", "swiglu", "fg_kernel", "silu"),
    "host copies": ("memcpy htod", "memcpy dtoh"),
    "copies": ("memcpy", "copy", "catarray"),
    "fills": ("fill", "memset"),
    "adds": ("add",),
    "optimizer": ("optimizer", "adam", "multi_tensor"),
}


def make(folder: Path, layers: int) -> None:
    """Write the random base in 16 bits and, from it, in NF4; with the tokenizer of the embedded base."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config, Qwen2ForCausalLM

    started = time.monotonic()
    config = Qwen2Config(
        vocab_size=152064,
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=layers,
        num_attention_heads=40,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder / "16bit", max_shard_size="5GB")
    del model
    torch.set_default_dtype(torch.float32)
    torch.cuda.empty_cache()
    print(f"16 bits after {time.monotonic() - started:.0f} s", flush=True)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder / "16bit", quantization_config=quantization, dtype=torch.bfloat16, device_map={"": 0}
    )
    model.save_pretrained(folder / "4bit", max_shard_size="5GB")
    for target in ("16bit", "4bit"):
        for file in (ROOT / "models/base-tiny").iterdir():
            if file.suffix not in (".safetensors", ".md") and file.name not in (
                "config.json",
                "generation_config.json",
            ):
                shutil.copyfile(file, folder / target / file.name)
    print(f"4 bits after {time.monotonic() - started:.0f} s", flush=True)


def conversations() -> list[dict[str, list[int]]]:
    """The 104 examples: random ids that every tokenizer has, labels on all of them."""
    draw = random.Random(0)
    rows = [[draw.randrange(300, 4000) for _ in range(draw.randint(721, 1514))] for _ in range(104)]
    return [{"input_ids": row, "labels": row} for row in rows]


def measure(folder: Path, variant: str, steps: int) -> None:
    """Train one variant in this process; print its figures as one line of JSON."""
    sys.path.insert(0, str(ROOT))
    from stages.shared.base_model import Base
    from stages.shared.params import load_params
    from stages.shared.train_plan import GIB
    from stages.train_lora import choose_plan, load_model, make_trainer

    os.environ["HF_HUB_OFFLINE"] = "1"
    params = load_params(ROOT / "presets/qwen14b-24gb.yaml")
    knobs = VARIANTS[variant] | {"loss_on": "conversation", "keep_best": False}
    params = params.model_copy(update={"train": params.train.model_copy(update=knobs)})
    examples = conversations()
    started = time.monotonic()
    base = Base(str(folder), "random", folder)
    if variant == "stock":
        trainer, plan = stock_trainer(params, folder, examples), None
    else:
        plan = choose_plan(params, base, "bfloat16", [len(row["input_ids"]) for row in examples])
        loaded = load_model(params, base, "bfloat16", plan)
        trainer = make_trainer(
            params, plan, "bfloat16", loaded, {"train": examples, "eval": examples[:1]}, Path("/tmp/train_14b"), []
        )
    import torch

    from stages.train_lora import PlannedOrder

    order = PlannedOrder([len(row["input_ids"]) for row in examples], params.train, plan or Notebook())
    trainer._get_train_sampler = lambda dataset=None: order
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.max_steps = WARM_UP + steps + 1
    clock = step_clock(WARM_UP + steps)
    trainer.add_callback(clock)
    loaded_after = time.monotonic() - started
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    indices = list(order)[8 * WARM_UP : 8 * (WARM_UP + steps)]
    tokens = sum(len(examples[index]["input_ids"]) for index in indices)
    seconds = clock.ends[WARM_UP + steps - 1] - clock.ends[WARM_UP - 1]
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    described = "1 x 8, all recomputed"
    if plan is not None:
        recomputed = f"{layers - plan.kept_layers} of {layers} recomputed ({plan.checkpointing})"
        described = f"{plan.micro_batch_size} x {plan.accumulation}, {recomputed}"
    figures = {
        "variant": variant,
        "plan": described,
        "tokens_per_second": tokens / seconds,
        "seconds_per_step": seconds / steps,
        "planned_gib": None if plan is None else plan.peak / GIB,
        "reserved_gib": torch.cuda.max_memory_reserved() / GIB,
        "allocated_gib": torch.cuda.max_memory_allocated() / GIB,
        "loaded_after_s": loaded_after,
        "peaks_by_step_gib": clock.peaks,
        "largest_micro_batch_tokens": None if plan is None else plan.tokens,
        **busy(clock.profile),
    }
    print("FIGURES " + json.dumps(figures), flush=True)


class Notebook:
    """What PlannedOrder asks of a plan, for the settings of the notebook."""

    micro_batch_size, padded = 1, False


def stock_trainer(params: Any, folder: Path, examples: list[dict[str, list[int]]]) -> Any:
    """TRL's trainer with transformers' model, PEFT's adapter and bitsandbytes' weights, nothing of Unsloth."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map={"": 0})
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)
    lora = LoraConfig(
        r=params.lora.r, lora_alpha=params.lora.alpha, target_modules=params.lora.target_modules, task_type="CAUSAL_LM"
    )
    settings = SFTConfig(
        output_dir="/tmp/train_14b",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=8,
        learning_rate=params.train.learning_rate,
        warmup_steps=params.train.warmup_steps,
        optim=params.train.optimizer,
        weight_decay=params.train.weight_decay,
        bf16=True,
        max_length=None,
        logging_steps=1,
        gradient_checkpointing=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        report_to="none",
        seed=params.train.seed,
    )
    return SFTTrainer(
        model=get_peft_model(model, lora),
        processing_class=AutoTokenizer.from_pretrained(folder),
        train_dataset=Dataset.from_list(examples),
        args=settings,
    )


def step_clock(profiled: int) -> Any:
    """A callback that notes when each step ends, and profiles the one after `profiled` steps."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.peaks: list[float] = []
            self.profile: Any = None

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == profiled:
                self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
                self.profile.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.cuda.synchronize()
            self.ends.append(time.monotonic())
            self.peaks.append(round(torch.cuda.max_memory_reserved() / 2**30, 2))
            if state.global_step == profiled + 1:
                self.profile.__exit__(None, None, None)

    return Clock()


def busy(profile: Any) -> dict[str, Any]:
    """Seconds in which the GPU did anything, and where: by kind and for the longest kernels."""
    from torch.autograd import DeviceType

    spans, kinds, kernels = [], Counter[str](), Counter[str]()
    for event in profile.profiler.kineto_results.events():
        if event.device_type() == DeviceType.CUDA:
            begin, seconds, name = event.start_ns(), event.duration_ns() / 1e9, event.name()
            spans.append((begin, begin + event.duration_ns()))
            kinds[next((k for k, words in KINDS.items() if any(w in name.lower() for w in words)), "other")] += seconds
            kernels[name[:110]] += seconds
    total, until = 0, 0
    for begin, end in sorted(spans):
        total += max(0, end - max(begin, until))
        until = max(until, end)
    return {
        "busy_seconds": total / 1e9,
        "kernels_launched": len(spans),
        "kinds": {name: round(seconds, 4) for name, seconds in kinds.most_common()},
        "kernels": {name: round(seconds, 4) for name, seconds in kernels.most_common(25)},
    }


def run(folder: Path, variants: list[str], steps: int) -> None:
    """Measure each variant in a process of its own; a failing one leaves a line and the others their figures."""
    results: list[dict[str, Any]] = []
    for variant in variants:
        command = [sys.executable, "-m", "benchmarks.train_14b", "one", str(folder), variant, "--steps", str(steps)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{variant} took over {SECONDS} s", flush=True)
            continue
        lines = [line for line in done.stdout.splitlines() if line.startswith("FIGURES ")]
        if lines:
            results.append(json.loads(lines[0].removeprefix("FIGURES ")))
            print(lines[0], flush=True)
        else:
            print(f"{variant} failed ({done.returncode}):\n{done.stdout[-1500:]}\n{done.stderr[-2500:]}", flush=True)
    notebook = next((each for each in results if each["variant"] == "notebook"), None)
    print("\n| variant | plan | tokens/s | x notebook | busy s a step | x notebook | peak GiB | planned GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for each in results:
        speed = f"{each['tokens_per_second'] / notebook['tokens_per_second']:.2f}" if notebook else "-"
        share = f"{each['busy_seconds'] / notebook['busy_seconds']:.2f}" if notebook else "-"
        planned = f"{each['planned_gib']:.1f}" if each["planned_gib"] else "-"
        print(
            f"| {each['variant']} | {each['plan']} | {each['tokens_per_second']:,.0f} | {speed} | "
            f"{each['busy_seconds']:.2f} | {share} | {each['reserved_gib']:.1f} | {planned} |",
            flush=True,
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--layers", type=int, default=48)
    for name in ("run", "one"):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("variants", nargs="*", help=", ".join(VARIANTS))
        command.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    if given.command == "make":
        make(given.folder, given.layers)
    elif given.command == "run":
        run(given.folder, given.variants or list(VARIANTS), given.steps)
    else:
        measure(given.folder, given.variants[0], given.steps)


if __name__ == "__main__":
    main()
