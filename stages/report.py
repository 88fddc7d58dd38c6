"""Gather what the stages measured: the model card with its scores, and five numbers to compare experiments by.

Reads:  models/gguf/ (its metadata), reports/{train/metrics,quantize_gguf,baseline,evaluate}.json,
        reports/train/plots/metrics/eval/loss.tsv
Writes: reports/MODEL_CARD.md (what goes to the Hub as README.md beside the files),
        reports/summary.json (of gate.method, answering freely),
        reports/size_quality.tsv (of every method that was measured, for the plot)
Alone:  python -m stages.report

The card in models/gguf cannot hold the scores: evaluate measures those files, so they are written before.
"""

import json
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file
from stages.shared.console import run_stage, say
from stages.shared.model_card import NAME, Measurements, model_card
from stages.shared.params import load_params
from stages.shared.provenance import read_provenance

GGUF = Path("models/gguf")
REPORTS = Path("reports")
CARD = REPORTS / "MODEL_CARD.md"
EVAL_LOSS = REPORTS / "train/plots/metrics/eval/loss.tsv"
SUMMARY = REPORTS / "summary.json"
SIZE_QUALITY = REPORTS / "size_quality.tsv"


def read_report(name: str) -> dict[str, Any]:
    """One of the reports."""
    value: dict[str, Any] = json.loads((REPORTS / name).read_text(encoding="utf-8"))
    return value


def size_quality(quantized: dict[str, Any], tuned: dict[str, Any]) -> str:
    """Each measured method's file size and scores, answering freely, as tab-separated values."""
    lines = ["method\tsize_mib\tschema_valid\trequirement_coverage"]
    for method in (each for each in quantized if each in tuned):
        free = tuned[method]["unconstrained"]
        lines.append(
            f"{method}\t{quantized[method]['size_mib']}\t{free['schema_valid']}\t{free['requirement_coverage']}"
        )
    return "\n".join(lines) + "\n"


def eval_loss(keep_best: bool) -> float:
    """Loss on the held-out answers after the epoch that was kept."""
    _, *rows = EVAL_LOSS.read_text(encoding="utf-8").splitlines()
    losses = [float(row.split("\t")[1]) for row in rows]
    return min(losses) if keep_best else losses[-1]


def main() -> None:
    """Write all three."""
    params = load_params()
    method = params.gate.method
    quantized, tuned = read_report("quantize_gguf.json"), read_report("evaluate.json")
    loss = eval_loss(params.train.keep_best)
    free = tuned[method]["unconstrained"]
    summary = {
        "train_loss": round(read_report("train/metrics.json")["train"]["loss"], 4),
        "eval_loss": round(loss, 4),
        "schema_valid": free["schema_valid"],
        "requirement_coverage": free["requirement_coverage"],
        "size_mib": quantized[method]["size_mib"],
    }
    file = f"{NAME}-{method.upper()}.gguf"
    card = model_card(
        read_provenance(GGUF / file)["training"],
        params.format_chatml.system_prompt,
        {f"{NAME}-{each.upper()}.gguf": numbers for each, numbers in quantized.items()},
        Measurements(file, tuned["n"], tuned[method], read_report("baseline.json")[method], loss),
    )
    with atomic_file(CARD) as path:
        path.write_text(card, encoding="utf-8")
    with atomic_file(SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    with atomic_file(SIZE_QUALITY) as path:
        path.write_text(size_quality(quantized, tuned), encoding="utf-8")
    say(f"  {', '.join(f'{name} {value:g}' for name, value in summary.items())}")


if __name__ == "__main__":
    run_stage("report", main, CARD, SUMMARY)
