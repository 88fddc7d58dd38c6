"""Make models/base-tiny: train its tokenizer and its weights on the corpus, from a seed.

Reads:  tools/corpus/ (the generators; nothing of data/ enters them), the prose
Writes: models/base-tiny/ (config.json, model.safetensors in bf16, tokenizer files, chat_template.jinja,
        training_curve.csv)
Run:    python -m tools.corpus.prose PROSE    fetches the real prose (Debian)
        python -m tools.make_base_tiny --prose PROSE --minutes 0 --out DIR    the tokenizer alone
        torchrun --nproc-per-node 2 -m tools.make_base_tiny --prose PROSE --tokenizer DIR --minutes 7    on 2 GPUs

Architecture: Qwen2 (https://huggingface.co/docs/transformers/model_doc/qwen2). The tokenizer is byte-level BPE
with Qwen2's pre-tokenizer, so that llama.cpp's `qwen2` pre-tokenizer splits text as it does.
"""

import argparse
import csv
import itertools
import math
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist
from torch.nn import functional

from stages.shared.atomic import atomic_folder
from stages.shared.chatml import CHATML_TEMPLATE, END_OF_TEXT, IM_END, IM_START
from stages.shared.console import say, size
from tools.corpus.composed import composed
from tools.corpus.disguise import disguise, stutter
from tools.corpus.generate import conversations
from tools.corpus.prose_documents import Library
from tools.corpus.prose_documents import conversation as prose_conversation

VOCABULARY = 8192
CONTEXT = 4096
TOKENIZER_CONVERSATIONS = 15_000
PROSE = 0.35  # share of the conversations over real prose
COMPOSED = 0.25  # share of the briefs put together from it
STUTTERED = 0.3  # share of all whose answer stumbles
BATCH = 16 * (CONTEXT + 2)  # tokens; as rows of CONTEXT // 2 or, in the last part of the run, of CONTEXT
LONG_ROWS_FROM = 0.9  # of the run
Stretch = tuple[str, bool]  # text, and whether the loss is taken on it
Curve = list[list[float]]  # step, tokens, seconds, loss


@dataclass(frozen=True)
class Knobs:
    """The command line.

    Attributes:
        prose: what `tools.corpus.prose` wrote.
        tokenizer: a folder whose tokenizer is taken instead of training one.
        start: a folder whose weights are trained on instead of random ones.
        minutes: training time.
        disguised: share of the synthetic conversations in which words are swapped.
        seed: of weights and texts.
        workers: processes that write text, for each GPU.
        learning_rate: its peak.
        out: the folder to write.

    """

    prose: Path
    tokenizer: Path | None
    start: Path | None
    minutes: float
    disguised: float
    seed: int
    workers: int
    learning_rate: float
    out: Path


# Qwen2's own split: contractions, words with a leading space, single digits, punctuation, line breaks.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SHAPE = {
    "hidden_size": 512,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


def corpus(seed: int, library: Library, disguised: float) -> Iterator[list[Stretch]]:
    """The conversations to train on as ChatML, for ever; the same seed gives the same stream.

    In the share `disguised` of those that are not plain prose, words are swapped; no loss is taken on their
    questions, which nobody could guess.
    """
    rng = random.Random(seed)
    synthetic = conversations(seed)
    while True:
        guessable, kind = True, rng.random()
        if kind < PROSE:
            messages = prose_conversation(library, rng)
        else:
            messages = composed(library, rng) if kind < PROSE + COMPOSED else next(synthetic)
            if rng.random() < disguised:
                messages, guessable = disguise(messages, rng), False
        stretches: list[Stretch] = []
        for number, message in enumerate(messages, start=1):
            answer = message["role"] == "assistant"
            stretches.append((f"{IM_START}{message['role']}\n", guessable))
            if number == len(messages) and rng.random() < STUTTERED:
                stretches += stutter(message["content"], rng)
            else:
                stretches.append((message["content"], guessable or answer))
            stretches.append((f"{IM_END}\n", guessable or answer))
        yield [*stretches, (END_OF_TEXT, True)]


def train_tokenizer(seed: int, library: Library, out: Path) -> Any:
    """Byte-level BPE of `VOCABULARY` entries with the three ChatML tokens, saved to `out`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, IM_START, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sample = itertools.islice(corpus(seed, library, 0.4), TOKENIZER_CONVERSATIONS)
    texts = (text for stretches in sample for text, _ in stretches if not text.startswith("<|"))
    tokenizer.train_from_iterator(texts, trainer)
    fast = Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        unk_token=None,
        bos_token=None,
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHATML_TEMPLATE
    fast.save_pretrained(out)
    return fast


def _produce(tokenizer_file: str, prose: Path, seed: int, disguised: float, queue: Any) -> None:
    """Fill `queue` with int16 arrays [BATCH] of packed token ids, for ever; ids that are not learnt are negated."""
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(tokenizer_file)
    source = (stretch for stretches in corpus(seed, Library(prose), disguised) for stretch in stretches)
    buffer: list[int] = []
    while True:
        while len(buffer) < BATCH:
            some = list(itertools.islice(source, 512))
            encodings = tokenizer.encode_batch([text for text, _ in some], add_special_tokens=False)
            for encoding, (_, learnt) in zip(encodings, some, strict=True):
                buffer.extend(encoding.ids if learnt else [-token for token in encoding.ids])
        queue.put(np.array(buffer[:BATCH], dtype=np.int16))
        buffer = buffer[BATCH:]


def batches(folder: Path, knobs: Knobs, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches [BATCH] as `_produce` makes them; the order depends on the workers' speed."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=4 * knobs.workers)
    for worker in range(knobs.workers):
        arguments = (str(folder / "tokenizer.json"), knobs.prose, seed + worker, knobs.disguised, queue)
        context.Process(target=_produce, args=arguments, daemon=True).start()
    while True:
        yield torch.from_numpy(queue.get())


def learning_rate(progress: float, peak: float) -> float:
    """Warm-up over 2 % of the run, then a cosine to 2 % of the peak."""
    if progress < 0.02:
        return peak * progress / 0.02
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.02) / 0.98))))


def train(folder: Path, knobs: Knobs) -> tuple[Any, Curve]:
    """Train the weights with the tokenizer in `folder`; the schedule follows the clock: a slower machine sees less.

    Under torchrun every process has its own GPU and its own stream of text; gradients are averaged.

    Returns:
        the model and its training curve: step, tokens, seconds and loss.

    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if world > 1:
        torch.cuda.set_device(rank)
        dist.init_process_group("nccl")
    torch.manual_seed(knobs.seed)
    torch.set_float32_matmul_precision("high")
    config = Qwen2Config(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, tie_word_embeddings=True, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, use_cache=True,
        eos_token_id=2, pad_token_id=0, bos_token_id=None, attn_implementation="sdpa", **SHAPE,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    if knobs.start:
        model = Qwen2ForCausalLM.from_pretrained(knobs.start, dtype=torch.float32)
    model.to(device)
    peak = knobs.learning_rate
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {world} {device}")
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    # Muon learns a small transformer's matrices from fewer tokens than AdamW does (https://kellerjordan.github.io/posts/muon/).
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.01, fused=device == "cuda"),
    ]

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1].abs(), use_cache=False).logits
        labels = ids[:, 1:].flatten()
        return functional.cross_entropy(logits.float().flatten(0, 1), labels.where(labels >= 0, -100))

    step_loss = torch.compile(loss_of, dynamic=False) if device == "cuda" else loss_of
    curve: Curve = []
    start, tokens, smooth, progress = time.monotonic(), 0, 0.0, 0.0
    for step, flat in enumerate(batches(folder, knobs, knobs.seed + 1000 * rank)):
        if step == 3:
            start = time.monotonic()  # compilation and the workers' start are not training
        if step >= 3 and step % 10 == 0:
            progress = _agreed((time.monotonic() - start) / (60 * knobs.minutes), world)
        if progress >= 1:
            break
        width = CONTEXT + 2 if progress > LONG_ROWS_FROM else CONTEXT // 2 + 1
        ids = flat.to(device, non_blocking=True).long().view(-1, width)[:, : CONTEXT + 1]
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = max(learning_rate(progress, peak), peak * 1e-3)
        loss = step_loss(ids)
        loss.backward()
        if world > 1:
            for parameter in model.parameters():
                dist.all_reduce(parameter.grad, dist.ReduceOp.AVG)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += world * ids.numel()
        if step % 20 == 0:
            smooth = loss.item()
            curve.append([step, tokens, round(time.monotonic() - start, 1), round(smooth, 4)])
        if step % 500 == 0 and rank == 0:
            rate = tokens / max(time.monotonic() - start, 1e-9)
            say(f"step {step}  {progress:4.0%}  {tokens / 1e6:.1f} M tokens  {rate / 1e3:.0f} k/s  loss {smooth:.4f}")
    spent = (time.monotonic() - start) / 60
    if world > 1:
        dist.destroy_process_group()
    say(f"done: {step} steps, {tokens / 1e6:.1f} M tokens, {spent:.1f} min, loss {smooth:.4f}")
    return model, curve


def save(model: Any, curve: Curve, out: Path) -> None:
    """Write the weights in bf16 and the curve."""
    model.to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.save_pretrained(out)
    with (out / "training_curve.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["step", "tokens", "seconds", "loss"], *curve])


def _agreed(progress: float, world: int) -> float:
    """The first process's clock, so that all of them take the same number of steps."""
    if world == 1:
        return progress
    shared = torch.tensor(progress, device="cuda")
    dist.broadcast(shared, 0)
    return float(shared)


def main() -> None:
    """Parse the arguments, make the tokenizer and the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prose", type=Path, required=True, help="what tools.corpus.prose wrote")
    parser.add_argument("--tokenizer", type=Path, help="a folder whose tokenizer is taken instead of training one")
    parser.add_argument("--start", type=Path, help="a folder whose weights are trained on instead of random ones")
    parser.add_argument("--minutes", type=float, default=10.0, help="training time")
    parser.add_argument("--disguised", type=float, default=0.85, help="share of the texts with swapped words")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="for each GPU")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, default=Path("models/base-tiny"))
    knobs = Knobs(**vars(parser.parse_args()))
    if "RANK" in os.environ and not knobs.tokenizer:
        raise SystemExit("--tokenizer: needed under torchrun. Make one first with --minutes 0 --out DIR.")
    if knobs.tokenizer and os.environ.get("RANK", "0") != "0":
        train(knobs.tokenizer, knobs)
        return
    with atomic_folder(knobs.out) as out:
        if knobs.tokenizer:
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copyfile(knobs.tokenizer / name, out / name)
        else:
            started = time.monotonic()
            tokenizer = train_tokenizer(knobs.seed, Library(knobs.prose), out)
            say(f"tokenizer: {len(tokenizer)} entries in {time.monotonic() - started:.0f} s")
        if knobs.minutes:
            save(*train(out, knobs), out)
    say(f"{knobs.out}: {size(knobs.out)}")


if __name__ == "__main__":
    main()
