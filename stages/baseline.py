"""Measure the untouched base as evaluate measures the tuned model: same quantization, same prompts, same scores.

Reads:  the 16-bit base model, data/chatml/{train,eval}.jsonl, data/epic.schema.json
Writes: reports/baseline.json, reports/baseline/answers-<method>-<mode>.jsonl
        (the base's GGUF is made in models/baseline.partial and removed)
Alone:  python -m stages.baseline
"""

import json
import shutil
from pathlib import Path

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.base_model import Base, resolve_base
from stages.shared.chatml import CHATML_TEMPLATE
from stages.shared.console import run_stage, say, size
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.imatrix import collect
from stages.shared.measure import jsonl, measure, read_rows
from stages.shared.params import QuantizeGgufParams, load_params

CHATML = Path("data/chatml")
SCRATCH = Path("models/baseline.partial")
METRICS = Path("reports/baseline.json")
REPORT = Path("reports/baseline")


def write_base(base: Base, method: str, knobs: QuantizeGgufParams, scratch: Path) -> Path:
    """Quantize the base with our chat template in place of its own; return the GGUF's path."""
    source = scratch / "base"
    source.mkdir(parents=True)
    for file in base.path.iterdir():
        if file.is_file() and file.name != "chat_template.jinja":
            (source / file.name).symlink_to(file.resolve())
    (source / "chat_template.jinja").write_text(CHATML_TEMPLATE, encoding="utf-8")
    target = scratch / f"base-{method.upper()}.gguf"
    about = About(
        name="baseline",
        description="The untouched base, to compare with.",
        license="other",
        languages=[],
        tags=[],
        base_model=base.name,
        base_revision=base.revision,
        provenance={},
    )
    model = read_model(source)
    matrix = collect(model, CHATML / "train.jsonl", knobs.imatrix_texts).mean_squares if knobs.imatrix else None
    write_ggufs(model, {method: target}, about, matrix)
    return target


def main() -> None:
    """Quantize, measure, clean up."""
    params = load_params()
    method = params.gate.method
    base = resolve_base(params.base_model.merge, params.base_model.merge_revision, "base_model.merge")
    rows = read_rows(CHATML)
    shutil.rmtree(SCRATCH, ignore_errors=True)  # what a killed run left
    try:
        file = write_base(base, method, params.quantize_gguf, SCRATCH)
        say(f"  {base.name} as {method}, {size(file)}; {len(rows['eval'])} held-out Epics")
        measured = measure(file, method, rows, params.evaluate)
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    with atomic_folder(REPORT) as report:
        for mode, records in measured.answers.items():
            (report / f"answers-{method}-{mode}.jsonl").write_text(jsonl(records), encoding="utf-8")
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps({"n": len(rows["eval"]), method: measured.metrics}, indent=2) + "\n")


if __name__ == "__main__":
    run_stage("baseline", main, METRICS, REPORT)
