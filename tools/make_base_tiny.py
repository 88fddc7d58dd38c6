"""Make models/base-tiny: train its tokenizer and its weights on the synthetic corpus, from a seed.

Reads:  tools/corpus/ (the generator; nothing of data/ enters it)
Writes: models/base-tiny/ (config.json, model.safetensors in bf16, tokenizer files, chat_template.jinja,
        training_curve.csv)
Run:    python -m tools.make_base_tiny --minutes 10     on a machine with a CUDA GPU
        python -m tools.make_base_tiny --minutes 1 --out DIR     on a CPU: it learns little, but it runs

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
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from stages.shared.atomic import atomic_folder
from stages.shared.chatml import CHATML_TEMPLATE, END_OF_TEXT, IM_END, IM_START
from stages.shared.console import say, size
from tools.corpus.disguise import disguise, stutter
from tools.corpus.generate import conversations

VOCABULARY = 8192
CONTEXT = 4096
TOKENIZER_CONVERSATIONS = 15_000
DISGUISED, STUTTERED = 0.7, 0.2  # shares of the conversations
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


def render(messages: list[dict[str, str]]) -> str:
    """A conversation as ChatML, ended as a document."""
    turns = (f"{IM_START}{m['role']}\n{m['content']}{IM_END}\n" for m in messages)
    return "".join(turns) + END_OF_TEXT


def corpus(seed: int) -> Iterator[list[dict[str, str]]]:
    """The conversations to train on, for ever; the same seed gives the same stream."""
    rng = random.Random(seed)
    for messages in conversations(seed):
        if rng.random() < DISGUISED:
            messages = disguise(messages, rng)
        yield stutter(messages, rng) if rng.random() < STUTTERED else messages


def train_tokenizer(seed: int, out: Path) -> Any:
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
    texts = (m["content"] for c in itertools.islice(corpus(seed), TOKENIZER_CONVERSATIONS) for m in c)
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


def _produce(tokenizer_file: str, seed: int, rows: int, queue: Any) -> None:
    """Fill `queue` with uint16 arrays [rows, CONTEXT + 1] of packed documents, for ever."""
    from tokenizers import Tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(tokenizer_file)
    source = (render(c) for c in corpus(seed))
    buffer: list[int] = []
    width = rows * (CONTEXT + 1)
    while True:
        while len(buffer) < width:
            for encoding in tokenizer.encode_batch(list(itertools.islice(source, 64)), add_special_tokens=False):
                buffer.extend(encoding.ids)
        queue.put(np.array(buffer[:width], dtype=np.uint16).reshape(rows, CONTEXT + 1))
        buffer = buffer[width:]


def batches(out: Path, seed: int, rows: int, workers: int) -> Iterator[torch.Tensor]:
    """Endless batches [rows, CONTEXT + 1] of token ids; the order depends on the workers' speed."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(maxsize=4 * workers)
    for worker in range(workers):
        arguments = (str(out / "tokenizer.json"), seed + 1 + worker, rows, queue)
        context.Process(target=_produce, args=arguments, daemon=True).start()
    while True:
        yield torch.from_numpy(queue.get().astype(np.int64))


def learning_rate(progress: float, peak: float) -> float:
    """Warm-up over 2 % of the run, then a cosine to 2 % of the peak."""
    if progress < 0.02:
        return peak * progress / 0.02
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - 0.02) / 0.98))))


def train(out: Path, seed: int, minutes: float, rows: int, workers: int, peak: float) -> None:
    """Train the weights for `minutes`; the schedule follows the clock, so a slower machine just sees less."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    config = Qwen2Config(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, tie_word_embeddings=True, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, use_cache=True,
        eos_token_id=2, pad_token_id=0, bos_token_id=None, attn_implementation="sdpa", **SHAPE,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(device)
    say(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {device}")
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    # Muon learns a small transformer's matrices from fewer tokens than AdamW does (https://kellerjordan.github.io/posts/muon/).
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.95), weight_decay=0.01, fused=device == "cuda"),
    ]

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    step_loss = torch.compile(loss_of) if device == "cuda" else loss_of
    curve, start, tokens, smooth = [], time.monotonic(), 0, 0.0
    for step, ids in enumerate(batches(out, seed, rows, workers)):
        if step == 3:
            start = time.monotonic()  # compilation and the workers' start are not training
        progress = (time.monotonic() - start) / (60 * minutes) if step >= 3 else 0.0
        if progress >= 1:
            break
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = max(learning_rate(progress, peak), peak * 1e-3)
        loss = step_loss(ids.to(device, non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        tokens += ids.numel()
        if step % 20 == 0:
            smooth = loss.item()
            curve.append([step, tokens, round(time.monotonic() - start, 1), round(smooth, 4)])
        if step % 200 == 0:
            rate = tokens / max(time.monotonic() - start, 1e-9)
            say(f"step {step}  {progress:4.0%}  {tokens / 1e6:.1f} M tokens  {rate / 1e3:.0f} k/s  loss {smooth:.4f}")
    say(
        f"done: {step} steps, {tokens / 1e6:.1f} M tokens, {(time.monotonic() - start) / 60:.1f} min, loss {smooth:.4f}"
    )
    model.to(torch.bfloat16)
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = 2
    model.generation_config.pad_token_id = 0
    model.save_pretrained(out)
    with (out / "training_curve.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([["step", "tokens", "seconds", "loss"], *curve])


def main() -> None:
    """Parse the arguments, make the tokenizer and the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="training time")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--rows", type=int, default=32 if torch.cuda.is_available() else 1)
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, default=Path("models/base-tiny"))
    arguments = parser.parse_args()
    with atomic_folder(arguments.out) as out:
        started = time.monotonic()
        tokenizer = train_tokenizer(arguments.seed, out)
        say(f"tokenizer: {len(tokenizer)} entries in {time.monotonic() - started:.0f} s")
        train(out, arguments.seed, arguments.minutes, arguments.rows, arguments.workers, arguments.learning_rate)
    say(f"{arguments.out}: {size(arguments.out)}")


if __name__ == "__main__":
    main()
