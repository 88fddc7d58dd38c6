"""Measure the GGUF files that ship on the held-out Epics, in llama.cpp, free and held to the schema.

Reads:  models/gguf/, data/chatml/{train,eval}.jsonl, data/epic.schema.json
Writes: reports/evaluate.json (metrics by method and mode),
        reports/evaluate/ (intervals.json, scores.tsv for the plot, answers-<method>-<mode>.jsonl,
        answers.html: the answers of gate.method beside their references, to read)
Alone:  python -m stages.evaluate
"""

import json
from pathlib import Path
from typing import Any

from stages.shared.answer_page import answer_page
from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.checksums import check_sums
from stages.shared.console import run_stage, say
from stages.shared.measure import Measured, jsonl, measure, read_rows
from stages.shared.params import load_params

GGUF = Path("models/gguf")
CHATML = Path("data/chatml")
METRICS = Path("reports/evaluate.json")
REPORT = Path("reports/evaluate")
INTERVALS_NOTE = (
    "95 % Wilson intervals over n held-out examples. The coverages are means of numbers between 0 and 1: theirs is "
    "that of a rate of the same value, which is at least as wide."
)


def gguf_file(method: str) -> Path:
    """The file that quantize_gguf writes for a method."""
    return GGUF / f"MiPM_Senior-{method.upper()}.gguf"


def score_table(measured: dict[str, Measured]) -> str:
    """Every metric that has an interval as tab-separated values, for DVC's plot."""
    lines = ["metric\tanswers\tvalue\tlow\thigh\tn"]
    for method, of_method in measured.items():
        for mode, intervals in of_method.intervals.items():
            for metric, at in intervals.items():
                numbers = "\t".join(str(at[key]) for key in ("value", "low", "high", "n"))
                lines.append(f"{metric}\t{method} {mode}\t{numbers}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every method, then write everything."""
    params = load_params()
    check_sums(GGUF, "quantize_gguf")
    rows = read_rows(CHATML)
    n = len(rows["eval"])
    measured: dict[str, Measured] = {}
    for method in params.evaluate.methods:
        file = gguf_file(method)
        measured[method] = measure(file, method, rows, params.evaluate, params.evaluate.endpoint)

    intervals: dict[str, Any] = {"note": INTERVALS_NOTE}
    intervals |= {method: each.intervals for method, each in measured.items()}
    with atomic_folder(REPORT) as report:
        for name, each in measured.items():
            for mode, records in each.answers.items():
                (report / f"answers-{name}-{mode}.jsonl").write_text(jsonl(records), encoding="utf-8")
        (report / "intervals.json").write_text(json.dumps(intervals, indent=2) + "\n", encoding="utf-8")
        (report / "scores.tsv").write_text(score_table(measured), encoding="utf-8")
        shown = measured[params.gate.method]
        page = answer_page(gguf_file(params.gate.method).name, shown.metrics, shown.intervals, shown.answers)
        (report / "answers.html").write_text(page, encoding="utf-8")
    with atomic_file(METRICS) as path:
        metrics = {method: each.metrics for method, each in measured.items()}
        path.write_text(json.dumps({"n": n, **metrics}, indent=2) + "\n", encoding="utf-8")
    say(f"  to read: {REPORT / 'answers.html'}")


if __name__ == "__main__":
    run_stage("evaluate", main, METRICS, REPORT)
