"""Render every example as ChatML and count its tokens.

Reads:  data/validated/{train,eval}.jsonl, the base's tokenizer
Writes: data/chatml/{train,eval}.jsonl, reports/format_chatml.json (token statistics),
        reports/format_chatml/lengths.tsv (one row per example, for the histogram)
Alone:  python -m stages.format_chatml
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.base_model import tokenizer_folder
from stages.shared.chatml import Encoder, answer_text, as_json, prompt_text, user_message
from stages.shared.console import run_stage, say
from stages.shared.params import load_params

VALIDATED = Path("data/validated")
CHATML = Path("data/chatml")
METRICS = Path("reports/format_chatml.json")
LENGTHS = Path("reports/format_chatml/lengths.tsv")
SPLITS = ("train", "eval")


def format_row(row: dict[str, Any], system: str, encoder: Encoder) -> dict[str, Any]:
    """One training row: prompt and answer apart, as text and as token ids.

    `answer_ids` end with `<|im_end|>`; `answer` is the JSON alone.
    """
    user, answer = user_message(row["input"]), as_json(row["output"])
    return {
        "epic_id": row["output"]["epic_id"],
        "prompt": prompt_text(system, user),
        "answer": answer,
        "prompt_ids": encoder.prompt(system, user),
        "answer_ids": encoder.answer(answer),
    }


def too_long(rows: list[dict[str, Any]], limit: int, file: Path) -> Iterator[str]:
    """One line for every row whose tokens exceed the limit."""
    for row in rows:
        length = len(row["prompt_ids"]) + len(row["answer_ids"])
        if length > limit:
            yield (
                f"{file}: {row['epic_id']}: {length} tokens, train.max_seq_length is {limit}. "
                "Shorten the example or raise train.max_seq_length."
            )


def check_system_prompt(system: str, encoder: Encoder) -> None:
    """Refuse a system prompt that would not reach the model as it is written.

    Raises:
        SystemExit: it holds a control token, or letters that the tokenizer changes.

    """
    place = "params.yaml: format_chatml.system_prompt"
    if found := next((token for token in encoder.control_tokens if token in system), None):
        raise SystemExit(f"{place}: holds the control token {found}. Write it in other words.")
    if changed := change(system, encoder.decode(encoder.text(system))):
        raise SystemExit(f"{place}: {changed}")


def change(text: str, decoded: str) -> str | None:
    """What a tokenizer's normalizer makes of a text, if anything; llama.cpp has none and would see other tokens."""
    if decoded == text:
        return None
    at = next((at for at, pair in enumerate(zip(text, decoded, strict=False)) if len(set(pair)) > 1), len(decoded))
    before = max(0, at - 10)
    return (
        f"the tokenizer reads {text[before : at + 10]!a} as {decoded[before : at + 10]!a}, llama.cpp would "
        "not. Save it with composed letters (Unicode NFC)."
    )


def changed_texts(rows: list[dict[str, Any]], encoder: Encoder, file: Path) -> Iterator[str]:
    """One line for every prompt and answer that the tokenizer changes."""
    for row in rows:
        for text, ids in ((row["prompt"], row["prompt_ids"]), (answer_text(row["answer"]), row["answer_ids"])):
            if changed := change(text, encoder.decode(ids)):
                yield f"{file}: {row['epic_id']}: {changed}"


def statistics(lengths: list[int]) -> dict[str, float]:
    """Minimum, mean, 95th percentile (nearest rank) and maximum."""
    ordered = sorted(lengths)
    return {
        "min": ordered[0],
        "mean": round(sum(ordered) / len(ordered), 1),
        "p95": ordered[math.ceil(0.95 * len(ordered)) - 1],
        "max": ordered[-1],
    }


def token_counts(rows: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Tokens per part, one number per row."""
    prompts = [len(row["prompt_ids"]) for row in rows]
    answers = [len(row["answer_ids"]) for row in rows]
    return {
        "prompt": prompts,
        "answer": answers,
        "total": [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
    }


def main() -> None:
    """Format both files; refuse examples that are too long before anything is written."""
    params = load_params()
    base = params.base_model
    folder = tokenizer_folder(base.train, base.train_revision, "base_model.train")
    from transformers import AutoTokenizer

    encoder = Encoder(AutoTokenizer.from_pretrained(folder))
    system = params.format_chatml.system_prompt
    check_system_prompt(system, encoder)
    rows: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        with (VALIDATED / f"{split}.jsonl").open(encoding="utf-8", newline="\n") as lines:
            rows[split] = [format_row(json.loads(line), system, encoder) for line in lines]
    problems: list[str] = []
    for split in SPLITS:
        file = VALIDATED / f"{split}.jsonl"
        problems += [
            *changed_texts(rows[split], encoder, file),
            *too_long(rows[split], params.train.max_seq_length, file),
        ]
    if problems:
        raise SystemExit("\n".join(problems))

    with atomic_folder(CHATML) as chatml:
        for split in SPLITS:
            with (chatml / f"{split}.jsonl").open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split])
    everything = token_counts(rows["train"] + rows["eval"])
    tokens = {part: statistics(lengths) for part, lengths in everything.items()}
    metrics = {"examples": {split: len(rows[split]) for split in SPLITS}, "tokens": tokens}
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n")
    with atomic_file(LENGTHS) as path, path.open("w") as out:
        out.write("split\ttokens\n")
        for split in SPLITS:
            out.writelines(f"{split}\t{total}\n" for total in token_counts(rows[split])["total"])
    total = tokens["total"]
    say(
        f"  {len(rows['train'])} + {len(rows['eval'])} examples, {total['min']} to {total['max']} tokens "
        f"(mean {total['mean']})"
    )


if __name__ == "__main__":
    run_stage("format_chatml", main, CHATML, METRICS)
