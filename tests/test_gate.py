"""gate: bars held against two real report files."""

import csv
import json
import re
from pathlib import Path

import pytest

from stages import gate
from stages.shared.params import load_params

ROOT = Path(__file__).parents[1]
TUNED = {"unconstrained": {"json_valid": 0.9583, "chrf": 42.0}, "constrained": {"json_valid": 1.0, "chrf": 44.0}}
BASE = {"unconstrained": {"json_valid": 0.2, "chrf": 14.0}, "constrained": {"json_valid": 0.9, "chrf": 15.0}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    for name, modes in (("evaluate", TUNED), ("baseline", BASE)):
        (tmp_path / f"reports/{name}.json").write_text(json.dumps({"n": 24, "q4_k_m": modes}))
    return tmp_path


def set_bars(project: Path, bars: str) -> None:
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    params = re.sub(r"methods: \[.*?\]", "methods: [q4_k_m, q8_0]", params)
    head = params[: params.index("gate:")]
    sections = ("unconstrained", "constrained", "baseline_at_most", "times_baseline")
    missing = "".join(f"  {section}: {{}}\n" for section in sections if f"  {section}:" not in bars)
    method = "" if "  method:" in bars else "  method: q4_k_m\n"
    (project / "params.yaml").write_text(f"{head}gate:\n{method}{bars}{missing}", encoding="utf-8")


def test_bars_that_are_met_are_printed_with_both_numbers_and_the_room(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_bars(
        project,
        "  unconstrained: {json_valid: 0.95}\n  constrained: {json_valid: 1.0}\n"
        "  baseline_at_most: {json_valid: 0.2}\n  times_baseline: {chrf: 3.0}\n",
    )
    gate.main()
    assert capsys.readouterr().out.splitlines() == [
        "  gate.unconstrained.json_valid: 0.9583, at least 0.95: met, 0.0083 to spare",
        "  gate.constrained.json_valid: 1, at least 1: met, 0 to spare",
        "  gate.baseline_at_most.json_valid: 0.2, at most 0.2: met, 0 to spare",
        "  gate.times_baseline.chrf: 42, at least 42 (3 x the baseline's 14): met, 0 to spare",
        "  q4_k_m meets all 4 bars",
    ]


def test_every_bar_that_is_not_met_ends_the_run_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_bars(
        project,
        "  unconstrained: {json_valid: 0.97, chrf: 1.0}\n  baseline_at_most: {json_valid: 0.1}\n"
        "  times_baseline: {chrf: 4.0}\n",
    )
    with pytest.raises(SystemExit) as end:
        gate.main()
    assert str(end.value).splitlines() == [
        "gate: gate.unconstrained.json_valid: 0.9583, at least 0.97: NOT MET, 0.0117 short",
        "gate: gate.baseline_at_most.json_valid: 0.2, at most 0.1: NOT MET, 0.1 over",
        "gate: gate.times_baseline.chrf: 42, at least 56 (4 x the baseline's 14): NOT MET, 14 short",
    ]
    assert "unconstrained.chrf: 42, at least 1: met" in capsys.readouterr().out


def test_a_product_that_rounds_up_does_not_fail_an_equal_value(project: Path) -> None:
    report = {"n": 24, "q4_k_m": TUNED | {"unconstrained": {"json_valid": 0.6, "chrf": 42.0}}}
    (project / "reports/evaluate.json").write_text(json.dumps(report))
    set_bars(project, "  times_baseline: {json_valid: 3.0}\n")  # 3 * 0.2 is 0.6000000000000001
    gate.main()


def test_metrics_that_nobody_measures_are_refused_all_at_once_with_the_valid_names(project: Path) -> None:
    set_bars(project, "  unconstrained: {json_vald: 0.9}\n  times_baseline: {speed: 2.0}\n")
    with pytest.raises(SystemExit) as end:
        gate.main()
    assert str(end.value).splitlines() == [
        "params.yaml: gate.unconstrained.json_vald: no such metric. Did you mean json_valid? Valid: chrf, json_valid.",
        "params.yaml: gate.times_baseline.speed: no such metric. Valid: chrf, json_valid.",
    ]


def test_a_report_that_is_missing_or_of_another_method_names_the_stage_to_run(project: Path) -> None:
    set_bars(project, "  method: q4_k_m\n")
    report = project / "reports/evaluate.json"
    measured = report.read_text()
    report.write_text(json.dumps({"n": 24, "q8_0": TUNED}))
    with pytest.raises(SystemExit, match=r"reports/evaluate.json: q4_k_m was not measured. Run `dvc repro evaluate`"):
        gate.main()
    report.write_text(measured)
    (project / "reports/baseline.json").unlink()
    with pytest.raises(SystemExit, match=r"reports/baseline.json: not found. Run `dvc repro baseline`"):
        gate.main()


def test_no_seed_alone_makes_the_committed_bars_fail() -> None:
    noise = ROOT / "reports/noise.tsv"
    knobs = load_params(ROOT / "params.yaml").gate
    lowest: dict[str, dict[str, float]] = {"unconstrained": {}, "constrained": {}}
    with noise.open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            method, _, name = row["metric"].partition(".")
            if row["file"] == "reports/evaluate.json" and method == knobs.method:
                mode, _, metric = name.partition(".")
                lowest[mode][metric] = float(row["lowest"])
    baseline = gate.read_modes(ROOT / "reports/baseline.json", knobs.method, "baseline")
    checked = list(gate.bars(knobs, lowest, baseline))
    assert checked
    assert [str(bar) for bar in checked if not bar.met] == []
