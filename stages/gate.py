"""Turn the measurements into a yes or no: exit 1 with every bar of params.yaml that is not met.

Reads:  reports/evaluate.json, reports/baseline.json
Writes: nothing; DVC runs it again when one of them or a bar changes
Alone:  python -m stages.gate
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.shared.console import run_stage, say
from stages.shared.params import GateParams, load_params

TUNED = Path("reports/evaluate.json")
BASELINE = Path("reports/baseline.json")
_ROUNDING = 1e-9  # 3 x 0.2 is 0.6000000000000001

Modes = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Bar:
    """One bar and the number that it is held against.

    Attributes:
        name: its key in params.yaml, such as `gate.unconstrained.json_valid`.
        value: what was measured.
        limit: what it is compared with.
        at_most: whether `limit` is the largest value allowed, not the smallest.
        origin: where a computed limit comes from, such as `3 x the baseline's 0.12`.

    """

    name: str
    value: float
    limit: float
    at_most: bool = False
    origin: str = ""

    @property
    def room(self) -> float:
        """How far the value is on the good side; negative when the bar is not met."""
        return self.limit - self.value if self.at_most else self.value - self.limit

    @property
    def met(self) -> bool:
        """Whether the value reaches the limit."""
        return self.room >= -_ROUNDING

    def __str__(self) -> str:
        miss = "over" if self.at_most else "short"
        verdict = f"met, {self.room:.4g} to spare" if self.met else f"NOT MET, {-self.room:.4g} {miss}"
        sign = "at most" if self.at_most else "at least"
        return f"{self.name}: {self.value:g}, {sign} {self.limit:g}{self.origin}: {verdict}"


def read_modes(file: Path, method: str, stage: str) -> Modes:
    """One method's metrics by mode."""
    if not file.is_file():
        raise SystemExit(f"{file}: not found. Run `dvc repro {stage}`.")
    report = json.loads(file.read_text(encoding="utf-8"))
    if method not in report:
        raise SystemExit(f"{file}: {method} was not measured. Run `dvc repro {stage}`.")
    modes: Modes = report[method]
    return modes


def check_names(gate: GateParams, valid: list[str]) -> None:
    """Refuse bars on metrics that nobody measures, all at once."""
    problems = []
    for section in ("unconstrained", "constrained", "baseline_at_most", "times_baseline"):
        for name in getattr(gate, section):
            if name not in valid:
                close = difflib.get_close_matches(name, valid, n=1)
                hint = f"Did you mean {close[0]}? " if close else ""
                problems.append(f"params.yaml: gate.{section}.{name}: no such metric. {hint}Valid: {', '.join(valid)}.")
    if problems:
        raise SystemExit("\n".join(problems))


def bars(gate: GateParams, tuned: Modes, baseline: Modes) -> Iterator[Bar]:
    """Every bar with its number, in the order of params.yaml."""
    free, base = tuned["unconstrained"], baseline["unconstrained"]
    for name, limit in gate.unconstrained.items():
        yield Bar(f"gate.unconstrained.{name}", free[name], limit)
    for name, limit in gate.constrained.items():
        yield Bar(f"gate.constrained.{name}", tuned["constrained"][name], limit)
    for name, limit in gate.baseline_at_most.items():
        yield Bar(f"gate.baseline_at_most.{name}", base[name], limit, at_most=True)
    for name, factor in gate.times_baseline.items():
        origin = f" ({factor:g} x the baseline's {base[name]:g})"
        yield Bar(f"gate.times_baseline.{name}", free[name], factor * base[name], origin=origin)


def main() -> None:
    """Print every bar; exit 1 if one is not met."""
    params = load_params()
    gate = params.gate
    tuned = read_modes(TUNED, gate.method, "evaluate")
    baseline = read_modes(BASELINE, gate.method, "baseline")
    check_names(gate, sorted(tuned["unconstrained"]))
    checked = list(bars(gate, tuned, baseline))
    for bar in checked:
        if bar.met:
            say(f"  {bar}")
    unmet = [bar for bar in checked if not bar.met]
    if unmet:
        raise SystemExit("\n".join(f"gate: {bar}" for bar in unmet))
    say(f"  {gate.method} meets all {len(checked)} bars")


if __name__ == "__main__":
    run_stage("gate", main)
