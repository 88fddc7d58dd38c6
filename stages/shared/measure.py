"""One GGUF file measured on the held-out Epics: the same for the tuned model and for the untouched base.

Every rate and mean is over the held-out examples. Each has a 95 % Wilson interval; for the two coverages, which are
means of numbers between 0 and 1, it is that of a rate of the same value over as many examples, which is at least
as wide as their own. Speed and chrF (of all criteria as one corpus) have none.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.shared.chatml import prompt_text
from stages.shared.console import say
from stages.shared.epic_schema import output_schema
from stages.shared.llama_runtime import Answer, Llama
from stages.shared.params import EvaluateParams
from stages.shared.scoring import chrf, covered, criteria_of, parse_object, score, wilson_interval

SPLITS = ("train", "eval")
MODES = ("unconstrained", "constrained")
_PROMPT = re.compile(re.escape(prompt_text("\0", "\0")).replace("\0", "(.*)"), re.DOTALL)


@dataclass(frozen=True)
class Row:
    """A formatted example.

    Attributes:
        place: file, line and epic_id, for messages.
        epic_id: of the reference.
        prompt: the whole prompt as text.
        prompt_ids: the token ids that the model is trained on for it.
        system: the prompt's system message.
        user: the prompt's user message, the input as JSON.
        reference: the hand-written output.

    """

    place: str
    epic_id: str
    prompt: str
    prompt_ids: list[int]
    system: str
    user: str
    reference: dict[str, Any]

    @property
    def input(self) -> dict[str, Any]:
        """The brief: `context` and `requerimientos`."""
        value: dict[str, Any] = json.loads(self.user)
        return value


@dataclass(frozen=True)
class Measured:
    """What one file is worth, by mode.

    Attributes:
        metrics: metric to value: rates and means 0 to 1, `criteria_chrf` 0 to 100, `tokens_per_second`.
        intervals: metric to value, low, high and n.
        answers: one record per example, as it goes into the answers' JSONL.

    """

    metrics: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, dict[str, float]]]
    answers: dict[str, list[dict[str, Any]]]


def read_rows(chatml: Path) -> dict[str, list[Row]]:
    """The formatted examples of both splits."""
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        file = chatml / f"{split}.jsonl"
        with file.open(encoding="utf-8") as lines:
            rows[split] = [_row(json.loads(line), f"{file}:{number}") for number, line in enumerate(lines, start=1)]
    return rows


def _row(row: dict[str, Any], place: str) -> Row:
    messages = _PROMPT.fullmatch(row["prompt"])
    if messages is None:
        raise SystemExit(f"{place}: {row['epic_id']}: its prompt is not ChatML. Run `dvc repro -f format_chatml`.")
    return Row(
        place=f"{place}: {row['epic_id']}",
        epic_id=row["epic_id"],
        prompt=row["prompt"],
        prompt_ids=row["prompt_ids"],
        system=messages[1],
        user=messages[2],
        reference=json.loads(row["answer"]),
    )


def check_prompts(llama: Llama, rows: Sequence[Row]) -> None:
    """Refuse a file that would be asked something else than the model was taught on.

    Raises:
        SystemExit: naming the first row whose prompt llama.cpp renders or tokenizes differently.

    """
    for row in rows:
        messages = [{"role": "system", "content": row.system}, {"role": "user", "content": row.user}]
        rendered = llama.apply_template(messages)
        if rendered != row.prompt:
            at = _first_difference(rendered, row.prompt)
            raise SystemExit(
                f"{row.place}: the GGUF's chat template renders {rendered[at : at + 20]!r} at character {at}, the "
                f"prompt has {row.prompt[at : at + 20]!r}. Run `dvc repro -f quantize_gguf`."
            )
        ids = llama.tokenize(row.prompt)
        if ids != row.prompt_ids:
            at = _first_difference(ids, row.prompt_ids)
            raise SystemExit(
                f"{row.place}: token {at} of the prompt is {row.prompt_ids[at : at + 1]} in training and "
                f"{ids[at : at + 1]} in llama.cpp. Use a base whose tokenizer llama.cpp knows, such as Qwen2.5's."
            )


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def measure(
    file: Path, method: str, rows: dict[str, list[Row]], evaluate: EvaluateParams, endpoint: str = "embedded"
) -> Measured:
    """Check the prompts of every row, then answer the held-out ones freely and held to the schema.

    Args:
        file: the GGUF.
        method: its name in the lines that are printed.
        rows: both splits.
        evaluate: length and number of answers at a time.
        endpoint: "embedded", or the address of a llama-server that has the file.

    """
    held_out = rows["eval"]
    longest = max(len(row.prompt_ids) for row in held_out)
    measured = Measured({}, {}, {})
    with Llama(file, evaluate.parallel, longest + evaluate.max_answer_tokens, endpoint) as llama:
        check_prompts(llama, [row for split in SPLITS for row in rows[split]])
        for mode in MODES:
            started = time.monotonic()
            answers = llama.answers(
                [row.prompt_ids for row in held_out],
                evaluate.max_answer_tokens,
                output_schema() if mode == "constrained" else None,
                f"{method} {mode}",
            )
            seconds = time.monotonic() - started
            records = [record(row, answer) for row, answer in zip(held_out, answers, strict=True)]
            intervals = with_intervals([each["scores"] for each in records])
            metrics = {name: interval["value"] for name, interval in intervals.items()}
            metrics["criteria_chrf"] = round(criteria_chrf(held_out, answers), 2)
            metrics["tokens_per_second"] = round(sum(answer.tokens for answer in answers) / seconds, 1)
            measured.metrics[mode], measured.intervals[mode], measured.answers[mode] = metrics, intervals, records
            say(f"  {method} {mode}: {summary(metrics, intervals)}")
            if endless := [each["epic_id"] for each in records if not each["finished"]]:
                limit = f"{evaluate.max_answer_tokens} tokens"
                say(f"    {len(endless)} of {len(records)} did not finish within {limit}: {', '.join(endless)}")
    return measured


def record(row: Row, answer: Answer) -> dict[str, Any]:
    """One answer with everything that it was judged by."""
    requirements = row.input["requerimientos"]
    criteria = criteria_of(parse_object(answer.text))
    return {
        "epic_id": row.epic_id,
        "input": row.input,
        "reference": row.reference,
        "answer": answer.text,
        "finished": answer.finished,
        "tokens": answer.tokens,
        "scores": score(answer.text, answer.finished, requirements, row.reference),
        "uncovered": [requirement for requirement in requirements if not covered(requirement, criteria)],
    }


def with_intervals(scores: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The mean of every score with its interval, and the share of valid ones among the finished answers."""
    counts = {name: (sum(each[name] for each in scores), len(scores)) for name in scores[0]}
    finished = [each["schema_valid"] for each in scores if each["finished"]]
    counts["schema_valid_when_finished"] = (sum(finished), len(finished))
    result = {}
    for name, (total, n) in counts.items():
        low, high = wilson_interval(total, n)
        value = total / n if n else 0.0
        result[name] = {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4), "n": n}
    return result


def criteria_chrf(rows: Sequence[Row], answers: Sequence[Answer]) -> float:
    """chrF, 0 to 100, of the answers' acceptance criteria against the references', one line per criterion."""
    hypotheses = ["\n".join(criteria_of(parse_object(answer.text))) for answer in answers]
    return chrf(hypotheses, ["\n".join(criteria_of(row.reference)) for row in rows])


def summary(metrics: dict[str, float], intervals: dict[str, dict[str, float]]) -> str:
    """A line of the metrics for a reader in a hurry, with the intervals of the two that are compared by."""
    schema, requirements = (
        f"{at['value']:.2f} [{at['low']:.2f}, {at['high']:.2f}]"
        for at in (intervals["schema_valid"], intervals["requirement_coverage"])
    )
    return (
        f"JSON {metrics['json_valid']:.2f}, schema {schema}, finished {metrics['finished']:.2f}, "
        f"fields {metrics['field_coverage']:.2f}, requirements {requirements}, chrF {metrics['criteria_chrf']:.1f}, "
        f"n {intervals['schema_valid']['n']}, {metrics['tokens_per_second']:.0f} tokens/s"
    )


def jsonl(records: Sequence[dict[str, Any]]) -> str:
    """The records as JSON Lines."""
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)
