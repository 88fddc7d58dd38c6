"""Train a LoRA adapter with Unsloth and TRL's SFTTrainer, on a GPU or a CPU alike.

Reads:  data/chatml/{train,eval}.jsonl, the base model
Writes: models/adapter/ (adapter, tokenizer, training.json: what it was trained from),
        reports/train/ (DVCLive: losses, learning rate, tokens/s, peak memory)
Resume: models/checkpoints/<fingerprint of data, params, code and versions>; removed when training is done
Alone:  python -m stages.train_lora
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.shared.atomic import atomic_file, atomic_folder, disk_is_full, no_space_left
from stages.shared.base_model import Base, exact_revision, resolve_base
from stages.shared.chatml import CHATML_TEMPLATE, IM_END
from stages.shared.checksums import NAME, damage, write_sums
from stages.shared.console import out, run_stage, say
from stages.shared.fingerprint import combined, library_versions, sha256
from stages.shared.params import Params, TrainParams, load_params
from stages.shared.train_plan import GIB, Plan, describe, epoch_order, machine_here, make_plan, read_shape
from stages.shared.transfer import fastest_dtype

if TYPE_CHECKING:
    from dvclive import Live
    from transformers import PreTrainedTokenizerBase, TrainerCallback

CHATML = Path("data/chatml")
ADAPTER = Path("models/adapter")
CHECKPOINTS = Path("models/checkpoints")
REPORT = Path("reports/train")
CODE = ("train_lora.py", "shared/chatml.py", "shared/train_plan.py")  # what decides how an adapter comes out
IGNORED = -100  # the label that PyTorch's cross-entropy leaves out
_ALIGNED = 64  # tokens; what a GPU's matrix units take at a time


def read_rows(split: str) -> list[dict[str, Any]]:
    """The formatted rows of one split."""
    with (CHATML / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def example(row: dict[str, Any], loss_on: str) -> dict[str, list[int]]:
    """Token ids and labels of one row; labels are -100 where no loss is taken."""
    prompt, answer = row["prompt_ids"], row["answer_ids"]
    masked = [IGNORED] * len(prompt) if loss_on == "answer" else prompt
    return {"input_ids": prompt + answer, "labels": masked + answer}


def check_labels(examples: list[dict[str, list[int]]], rows: list[dict[str, Any]], end: int) -> None:
    """Refuse a row whose answer is not trained to its end, or whose labels there hold `<|im_end|>` before it or not."""
    for row, given in zip(rows, examples, strict=True):
        trained = given["labels"][len(row["prompt_ids"]) :]
        if trained[-1:] != [end] or trained.count(end) > 1 or IGNORED in trained:
            raise SystemExit(
                f"{CHATML}/train.jsonl: {row['epic_id']}: its answer's labels do not hold {IM_END} once, at their end, "
                "so the model would not learn where to stop. Run `dvc repro -f format_chatml`."
            )


def show_mask(row: dict[str, list[int]], tokenizer: "PreTrainedTokenizerBase") -> None:
    """Print one row as the loss sees it: a few lines around the point where training begins."""
    begin = next(i for i, label in enumerate(row["labels"]) if label != IGNORED)
    before = tokenizer.decode(row["input_ids"][max(0, begin - 24) : begin])
    after = tokenizer.decode(row["input_ids"][begin : begin + 24])
    last = tokenizer.decode(row["input_ids"][-6:])
    say(f"  one row: {len(row['input_ids'])} tokens, the loss is taken from token {begin} on")
    say(f"    not trained: ...{before!r}")
    say(f"    trained:     {after!r}... {last!r}")


def checkpoint_folder(params: Params, base: Base) -> Path:
    """Where this very training keeps its checkpoints: another data set, knob, code or version has another."""
    code = [sha256(Path(__file__).parent / file) for file in CODE]
    data = [sha256(CHATML / "train.jsonl"), sha256(CHATML / "eval.jsonl")]
    # These only say how the same steps are computed: a run that lacked memory goes on with others.
    how = {"micro_batch_size", "gradient_checkpointing", "memory_limit_gib"}
    knobs = [params.lora.model_dump_json(), params.train.model_dump_json(exclude=how), base.name, base.revision]
    return CHECKPOINTS / combined([*code, *data, *knobs, json.dumps(library_versions())])


def launch(processes: int) -> None:
    """Run this stage as several processes that share each effective batch, under accelerate's launcher.

    Raises:
        SystemExit: one of them failed; it has said why.

    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    options = ["--multi_gpu", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    counts = [f"--num_processes={processes}", f"--num_cpu_threads_per_process={threads}", "--main_process_port=0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, *counts, "-m", "stages.train_lora"]
    if subprocess.run(command, check=False, stdout=out()).returncode:
        raise SystemExit("train_lora: one of its processes failed; what it said stands above.")


def peak_memory_gib() -> float:
    """Peak memory: reserved on the GPU if there is one, else resident on the host."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved() / 2**30)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak / 2**30 if sys.platform == "darwin" else peak / 2**20)


def reporter(live: "Live", plan: Plan, tokens_per_epoch: int) -> "TrainerCallback":
    """A callback that writes losses and learning rate to DVCLive and a progress line per tenth of the run."""
    from transformers import TrainerCallback

    class Reporter(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started, self.first_epoch = time.monotonic(), state.epoch or 0.0
            self.evaluating = 0.0
            for logs in state.log_history:  # of the run that was killed: DVC has removed what it logged
                self.write(logs["step"], logs)

        def write(self, step: int, logs: dict[str, float]) -> None:
            live.step = step
            for key, name in (("loss", "train/loss"), ("eval_loss", "eval/loss"), ("learning_rate", "learning_rate")):
                if key in logs:
                    live.log_metric(name, logs[key])
            live.make_summary()  # type: ignore[no-untyped-call]

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            logs = logs or {}
            self.write(state.global_step, logs)
            self.evaluating += logs.get("eval_runtime", 0.0)
            if "eval_loss" in logs:
                say(f"  epoch {state.epoch:.0f}: eval loss {logs['eval_loss']:.4f}")
            elif "loss" in logs and state.global_step % max(1, state.max_steps // 10) == 0:
                say(f"  step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tokens = tokens_per_epoch * (state.epoch - self.first_epoch)
            seconds = time.monotonic() - self.started - self.evaluating
            live.summary["tokens_per_second"] = round(tokens / seconds, 1)
            live.summary["peak_memory_gib"] = round(peak_memory_gib(), 2)
            live.summary["planned_memory_gib"] = round(plan.peak / GIB, 2)

    return Reporter()


def seal() -> "TrainerCallback":
    """A callback that ends every checkpoint with the sums of its files: one without them was never finished."""
    from accelerate import PartialState
    from transformers import TrainerCallback

    class Seal(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            PartialState().wait_for_everyone()  # each process writes the state of its own random numbers
            if state.is_world_process_zero:
                write_sums(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Seal()


def choose_plan(params: Params, base: Base, precision: str, lengths: list[int]) -> Plan:
    """The fastest plan within this machine's memory, printed with its estimate; before any weight is read."""
    # Unsloth sets the allocator up, which has to come before the GPU is first asked for anything.
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    # Unsloth would time bfloat16 against float32 and choose: a coin toss is no knob.
    os.environ["UNSLOTH_CPU_BF16"] = "1" if precision == "bfloat16" else "0"
    import unsloth  # noqa: F401  # isort: skip
    import torch

    if torch.cuda.is_available():
        if params.train.memory_limit_gib is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, params.train.memory_limit_gib * GIB / total))
    elif "8bit" in params.train.optimizer:
        raise SystemExit(
            f"params.yaml: train.optimizer: {params.train.optimizer} needs a GPU and there is none here. "
            "Set it to adamw_torch."
        )
    shape, machine = read_shape(base.path, params.train.load_in_4bit), machine_here(params.train)
    plans = [make_plan(params, shape, machine, lengths, 2 if precision == "bfloat16" else 4)]
    if params.train.num_processes > 1:
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        PartialState(cpu=machine.device == "cpu")
        broadcast_object_list(plans)  # free memory differs from card to card, the steps may not
    plan = plans[0]
    say(f"  plan: {describe(plan, shape, machine)}")
    return plan


def load_model(params: Params, base: Base, precision: str, plan: Plan) -> tuple[Any, Any]:
    """The base with a fresh adapter, and its tokenizer with our template."""
    import torch
    from transformers import set_seed
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        str(base.path),
        max_seq_length=params.train.max_seq_length,
        dtype=getattr(torch, precision),
        load_in_4bit=params.train.load_in_4bit,
        trust_remote_code=False,
        offload_embedding=False,  # by default Unsloth decides, and the plan's estimate would be a guess
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    checkpointing: dict[str, bool | str] = {"none": False, "full": True, "unsloth": "unsloth"}
    some_kept = {"checkpoint_skip_layers": plan.kept_layers} if torch.cuda.is_available() else {}
    set_seed(params.train.seed)
    model = FastLanguageModel.get_peft_model(
        model,
        r=params.lora.r,
        lora_alpha=params.lora.alpha,
        lora_dropout=params.lora.dropout,
        target_modules=list(params.lora.target_modules),
        bias="none",
        use_gradient_checkpointing=checkpointing[plan.checkpointing],
        random_state=params.train.seed,
        **some_kept,
    )
    if not some_kept:  # Unsloth's CPU path has no such argument
        for layer in model.base_model.model.model.layers[len(model.base_model.model.model.layers) - plan.kept_layers :]:
            layer.gradient_checkpointing = False
    return model, tokenizer


def arguments(train: TrainParams, precision: str, plan: Plan, checkpoints: Path) -> Any:
    """TRL's settings for our knobs; rows are tokenized already, so it must not touch them."""
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        per_device_train_batch_size=plan.micro_batch_size,
        # One: the Trainer's eval loss is a mean over batches, and accelerate fills a short last batch up and drops the
        # surplus whole batch by whole batch.
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        optim=train.optimizer,
        weight_decay=train.weight_decay,
        lr_scheduler_type=train.lr_scheduler,
        seed=train.seed,
        bf16=precision == "bfloat16",
        max_length=None,  # format_chatml has refused what is too long
        padding_free=torch.cuda.is_available(),
        logging_steps=train.logging_steps,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=train.keep_best,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        gradient_checkpointing=False,  # Unsloth has set it on the model
        ddp_find_unused_parameters=False,
        report_to="none",
        disable_tqdm=True,
    )


def last_checkpoint(checkpoints: Path) -> str | None:
    """The newest whole checkpoint of a killed run."""
    whole = [folder for folder in checkpoints.glob("checkpoint-*") if (folder / NAME).is_file()]
    for folder in sorted(whole, key=lambda folder: int(folder.name.split("-")[1]), reverse=True):
        found = damage(folder)
        if found is None:
            return str(folder)
        say(f"  {found[0]}: {found[1]}. This checkpoint is not used.")
    return None


def make_trainer(
    params: Params,
    plan: Plan,
    precision: str,
    model_and_tokenizer: tuple[Any, Any],
    examples: dict[str, list[dict[str, list[int]]]],
    checkpoints: Path,
    callbacks: "list[TrainerCallback]",
) -> Any:
    """TRL's trainer over the tokenized examples of both splits, with the plan's order of the training ones."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTTrainer

    model, tokenizer = model_and_tokenizer
    datasets: dict[str, Any] = {split: Dataset.from_list(rows) for split, rows in examples.items()}
    for dataset in datasets.values():
        # format_chatml has refused what is too long; without this word on it Unsloth goes back to padding.
        dataset._unsloth_truncated_to = params.train.max_seq_length
    trainer: Any = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=datasets["train"],
        eval_dataset=datasets["eval"],
        args=arguments(params.train, precision, plan, checkpoints),
        callbacks=callbacks,
    )
    if plan.micro_batch_size > 1 and not plan.padded and not trainer.args.padding_free:
        raise SystemExit(
            "train_lora: Unsloth cannot train this base without padding, which the plan counts on. Set "
            "train.micro_batch_size to 1 in params.yaml."
        )
    if not plan.padded:
        trainer.data_collator = aligned(trainer.data_collator, tokenizer.pad_token_id)
    trainer.remove_callback(PrinterCallback)
    order = PlannedOrder([len(row["input_ids"]) for row in examples["train"]], params.train, plan)
    trainer._get_train_sampler = lambda dataset=None: order
    return trainer


def aligned(collate: Callable[[list[Any]], Any], pad: int) -> Callable[[list[Any]], Any]:
    """Lengthen a flattened row at its end to a multiple of `_ALIGNED` tokens; no loss is taken on them.

    Matrix multiplications over an odd number of tokens fall back to kernels of a fraction of the speed. The last
    example gets them: nothing attends to what comes after it.
    """

    def collate_aligned(examples: list[Any]) -> Any:
        *others, last = examples
        missing = -sum(len(example["input_ids"]) for example in examples) % _ALIGNED
        longer = {
            "input_ids": [*last["input_ids"], *[pad] * missing],
            "labels": [*last["labels"], *[IGNORED] * missing],
        }
        return collate([*others, longer])

    return collate_aligned


class PlannedOrder:
    """The sampler that the plan was made for; accelerate tells it the epoch."""

    def __init__(self, lengths: list[int], train: TrainParams, plan: Plan) -> None:
        self._lengths, self._train, self._plan, self._epoch = lengths, train, plan, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order that the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        plan = self._plan
        return iter(epoch_order(self._lengths, self._train, plan.micro_batch_size, self._epoch, plan.padded))


def main() -> None:
    """Train here, or in as many processes as params.yaml says."""
    params = load_params()
    if params.train.num_processes > 1 and "LOCAL_RANK" not in os.environ:
        launch(params.train.num_processes)
    else:
        run(params)


def run(params: Params) -> None:
    """Train, evaluate every epoch, write the adapter and what it was trained from."""
    first = os.environ.get("RANK", "0") == "0"
    base = resolve_base(params.base_model.train, params.base_model.train_revision, "base_model.train")
    merge_revision = exact_revision(params.base_model.merge, params.base_model.merge_revision, "base_model.merge")
    rows = {split: read_rows(split) for split in ("train", "eval")}
    hashes = {f"{split}_sha256": sha256(CHATML / f"{split}.jsonl") for split in rows}
    checkpoints = checkpoint_folder(params, base)

    examples = {split: [example(row, params.train.loss_on) for row in of_split] for split, of_split in rows.items()}
    lengths = [len(row["input_ids"]) for row in examples["train"]]
    precision = fastest_dtype() if params.train.precision == "auto" else params.train.precision
    plan = choose_plan(params, base, precision, lengths)
    model, tokenizer = load_model(params, base, precision, plan)
    from dvclive import Live

    check_labels(examples["train"], rows["train"], tokenizer.convert_tokens_to_ids(IM_END))
    show_mask(examples["train"][0], tokenizer)
    live = Live(str(REPORT), dvcyaml=None, save_dvc_exp=False, monitor_system=False) if first else None
    callbacks = [seal(), *([reporter(live, plan, sum(lengths))] if live else [])]
    trainer = make_trainer(params, plan, precision, (model, tokenizer), examples, checkpoints, callbacks)
    resume = last_checkpoint(checkpoints)
    say(f"  {(resume and f'resumes from {resume}') or 'starts'}, in {precision}, checkpoints in {checkpoints}")
    train(trainer, resume, plan, checkpoints)
    trainer.accelerator.wait_for_everyone()
    if live is None:
        return
    live.end()  # type: ignore[no-untyped-call]

    with atomic_folder(ADAPTER) as adapter:
        # PEFT keeps them as a set: every process would write another order, and the same training other bytes.
        model.peft_config["default"].target_modules = sorted(params.lora.target_modules)
        model.save_pretrained(adapter, safe_serialization=True)
        tokenizer.save_pretrained(adapter)
        with atomic_file(adapter / "training.json") as path:
            path.write_text(
                json.dumps(
                    training_record(params, base, merge_revision, precision, hashes), indent=2, ensure_ascii=False
                )
                + "\n"
            )
        write_sums(adapter)
    shutil.rmtree(checkpoints)
    best = trainer.state.best_metric if params.train.keep_best else live.summary["eval"]["loss"]
    say(f"  {trainer.state.global_step} steps, eval loss {best:.4f}")


def train(trainer: Any, resume: str | None, plan: Plan, checkpoints: Path) -> None:
    """Run the trainer; what a user can mend is said in one line, and the checkpoints stay.

    Raises:
        SystemExit: out of memory, or out of disk.

    """
    from accelerate.utils.memory import should_reduce_batch_size
    from safetensors import SafetensorError

    try:
        trainer.train(resume_from_checkpoint=resume)
    except (RuntimeError, OSError, SafetensorError) as error:
        if no_space_left(checkpoints.parent):
            for torn in checkpoints.glob("checkpoint-*"):
                if not (torn / NAME).is_file():
                    shutil.rmtree(torn)
            raise disk_is_full(checkpoints) from None
        if should_reduce_batch_size(error) or "out of memory" in str(error):
            used = peak_memory_gib()
            raise SystemExit(
                f"train_lora: out of memory in step {trainer.state.global_step + 1} of {trainer.state.max_steps}: "
                f"{used:.1f} GiB were in use, {plan.peak / GIB:.1f} GiB were planned for. Set train.memory_limit_gib "
                f"to {0.9 * min(used, plan.peak / GIB):.1f} in params.yaml and run it again: it goes on from the last "
                f"checkpoint in {checkpoints} with a smaller plan."
            ) from None
        raise


def training_record(
    params: Params, base: Base, merge_revision: str, precision: str, hashes: dict[str, str]
) -> dict[str, Any]:
    """What the adapter was trained from, for merge to check and for the GGUF to carry."""
    return {
        "base_model": {"name": base.name, "revision": base.revision},
        "merge_base": {"name": params.base_model.merge, "revision": merge_revision},
        "data": hashes,
        "lora": params.lora.model_dump(),
        "train": params.train.model_dump() | {"precision": precision},
        "versions": library_versions(),
    }


if __name__ == "__main__":
    run_stage("train_lora", main, ADAPTER, REPORT)
