"""Measure how much every metric varies when nothing but the seed does: five runs of the pipeline.

Run: make noise (five trainings and five evaluations, about four minutes each on the embedded base and two cores)
Reads: the last commit, and params.yaml as it stands
Writes: reports/noise.tsv

A difference in `dvc metrics diff` that is smaller than a metric's `spread` there may be the seed's alone.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.shared.atomic import atomic_file
from stages.shared.console import say
from stages.shared.params import load_params

NOISE = Path("reports/noise.tsv")
RUNS = 5

Metrics = dict[str, dict[str, float]]  # file to dotted name to value, as in `dvc metrics diff`


def seeds(own: int) -> list[int]:
    """The seed of params.yaml and the smallest others."""
    return [own, *(seed for seed in range(1, RUNS + 1) if seed != own)][:RUNS]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a metrics file by dotted name."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def run(folder: Path, seed: int) -> Metrics:
    """Every metric of the pipeline in a folder, run with this seed."""
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["train"]["seed"] = seed
    yaml.dump(params, folder / "params.yaml")
    dvc = [sys.executable, "-m", "dvc"]
    # report comes last and, unlike gate, whatever the scores are.
    if subprocess.run([*dvc, "repro", "report"], cwd=folder, check=False).returncode:
        raise SystemExit(f"train.seed {seed}: the pipeline failed; what it said stands above.")
    shown = subprocess.run([*dvc, "metrics", "show", "--json"], cwd=folder, check=True, stdout=subprocess.PIPE).stdout
    return {file: flat(metrics["data"]) for file, metrics in json.loads(shown)[""]["data"].items()}


def table(runs: dict[int, Metrics]) -> str:
    """Every metric's lowest and highest value over the runs, their difference, mean and standard deviation, as TSV."""
    lines = ["file\tmetric\truns\tlowest\thighest\tspread\tmean\tstandard_deviation"]
    first, *_ = runs.values()
    for file, names in first.items():
        for name in names:
            values = [metrics[file][name] for metrics in runs.values()]
            low, high = min(values), max(values)
            facts = (low, high, high - low, statistics.fmean(values), statistics.stdev(values))
            lines.append("\t".join([file, name, str(len(values)), *(f"{fact:.4g}" for fact in facts)]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the pipeline once for each seed in a clone that is thrown away, then write what came out."""
    own = load_params().train.seed
    runs: dict[int, Metrics] = {}
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "pipeline"
        subprocess.run(["git", "clone", "--quiet", str(Path.cwd()), str(clone)], check=True)
        shutil.copyfile("params.yaml", clone / "params.yaml")
        for number, seed in enumerate(seeds(own), start=1):
            say(f"noise: run {number} of {RUNS}, train.seed {seed}")
            runs[seed] = run(clone, seed)
    text = table(runs)
    with atomic_file(NOISE) as path:
        path.write_text(text, encoding="utf-8")
    say(text + f"noise: {NOISE}")


if __name__ == "__main__":
    main()
