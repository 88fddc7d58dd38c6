"""`dvc exp`, `dvc metrics` and `dvc plots` as a user runs them, on real trainings of the small repository."""

import html.parser
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.servers import program
from tests.small_repository import ROOT, run
from tests.test_remotes import files

MODELS = ["adapter", "merged", "gguf"]
SMALL_STAGES = ["validate", "format_chatml", "baseline"]
SUMMARY = {"train_loss", "eval_loss", "schema_valid", "requirement_coverage", "size_mib"}
TITLES = [
    "Loss while training (mean of 11 steps)",
    "Loss on the held-out Epics, after each epoch",
    "Held-out Epics, with 95 % intervals",
    "Size and quality of each file",
    "Size of each file and what its quantization costs",
    "Tokens per example",
]
FROM_TRAINING_ON = ["check_params", "train_lora", "merge", "quantize_gguf", "evaluate", "gate", "report"]


@pytest.fixture(scope="module")
def tried(finished_once: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A repository in whose workspace `dvc exp run -S lora.r=8` has run, and what it printed."""
    folder = Path(shutil.copytree(finished_once, tmp_path_factory.mktemp("tried") / "repository", symlinks=True))
    return folder, run("dvc", "exp", "run", "--name", "rank-8", "-S", "lora.r=8", cwd=folder)


def test_another_rank_runs_the_training_and_what_follows_and_nothing_before(tried: tuple[Path, str]) -> None:
    _, output = tried
    assert re.findall(r"Running stage '(\w+)'", output) == FROM_TRAINING_ON
    assert re.findall(r"Stage '(\w+)' didn't change", output) == SMALL_STAGES


def test_make_experiments_shows_the_changed_knobs_and_five_numbers(
    tried: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = tried
    lines = subprocess.run(
        ["make", "--dry-run", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    command = next(line for line in lines if line.startswith("dvc exp show"))
    monkeypatch.setenv("COLUMNS", "140")
    table = run("bash", "-c", command, cwd=folder).splitlines()
    names = ["train_loss", "eval_loss", "schema_valid", "requirement_coverage", "size_mib", "lora.r"]
    assert table[1].split() == ["Experiment", *names]
    (row,) = (line.split() for line in table if "[rank-8]" in line)
    assert row[-1] == "8"


def test_metrics_diff_compares_the_losses_and_the_scores(tried: tuple[Path, str]) -> None:
    folder, _ = tried
    shown = run("dvc", "metrics", "diff", "--all", "main", "rank-8", cwd=folder)
    for name in ("train.loss", "eval.loss", "q4_k_m.unconstrained.schema_valid", "q4_k_m.constrained.criteria_chrf"):
        assert f" {name} " in shown


def test_editors_get_as_json_what_they_show(tried: tuple[Path, str]) -> None:
    """The calls that DVC's VS Code extension makes, beside that for the plots."""
    folder, _ = tried
    branches = json.loads(run("dvc", "exp", "show", "--json", cwd=folder))
    revisions = [revision for branch in branches for revision in [branch, *flat(branch)]]
    assert not any(revision["error"] for revision in revisions)
    shown = {revision["name"]: revision["data"] for revision in revisions}
    for name, rank in (("main", 16), ("rank-8", 8)):
        assert shown[name]["params"]["params.yaml"]["data"]["lora"]["r"] == rank
        assert set(shown[name]["metrics"]["reports/summary.json"]["data"]) == SUMMARY
    diff = json.loads(run("dvc", "params", "diff", "main", "rank-8", "--json", cwd=folder))
    assert diff == {"params.yaml": {"lora.r": {"old": 16, "new": 8, "diff": -8}}}
    status = json.loads(run("dvc", "data", "status", "--json", "--granular", cwd=folder))
    assert "uncommitted" not in status


def flat(branch: dict[str, Any]) -> list[dict[str, Any]]:
    """The experiments that hang on a commit."""
    return [revision for experiment in branch["experiments"] or [] for revision in experiment["revs"]]


def test_a_sweep_runs_from_the_queue_and_gives_the_same_bytes_as_in_the_workspace(tried: tuple[Path, str]) -> None:
    """Same commit, same machine, same knobs: in another folder, trained anew, the same adapter and the same GGUF."""
    folder, _ = tried
    in_workspace = {part: files(folder / "models" / part) for part in ("adapter", "gguf")}
    run("git", "checkout", "--quiet", "--force", "main", cwd=folder)
    run("dvc", "checkout", "--force", cwd=folder)
    assert files(folder / "models/adapter") != in_workspace["adapter"]
    shutil.rmtree(folder / ".dvc/cache/runs")  # else DVC would take the outputs of the run before
    rate = YAML().load(folder / "params.yaml")["train"]["learning_rate"]
    sweep = ("-S", "lora.r=8,16", "-S", f"train.learning_rate={rate}")
    queued = run("dvc", "exp", "run", "--queue", *sweep, cwd=folder)
    names = re.findall(r"Queued experiment '([\w-]+)'", queued)
    assert len(names) == 2
    run("dvc", "queue", "start", "--jobs", "1", cwd=folder)
    while "Queued" in (status := run("dvc", "queue", "status", cwd=folder)) or "Running" in status:
        time.sleep(1)
    assert status.count("Success") == 2, status
    assert run("git", "status", "--porcelain", cwd=folder) == "", "the workspace stays as it was"
    run("dvc", "exp", "apply", names[0], cwd=folder)
    assert {part: files(folder / "models" / part) for part in ("adapter", "gguf")} == in_workspace


def test_wrong_overrides_are_refused_by_name_with_the_valid_ones_before_any_work(finished: Path) -> None:
    before = {part: files(finished / "models" / part) for part in MODELS}
    overrides = ("-S", "lora.r=abc", "-S", "train.learning_rate=-1", "-S", "+lora.rank=8")
    output = run("dvc", "exp", "run", *overrides, cwd=finished, fails=True)
    assert "params.yaml: lora.r: is 'abc', should be a valid integer." in output
    assert "params.yaml: train.learning_rate: is -1, should be greater than 0." in output
    assert "lora.rank: no such knob." in output
    assert "Valid here: r, alpha, dropout, target_modules." in output
    assert "step 1/" not in output and "Traceback" not in output
    assert run("git", "status", "--porcelain", cwd=finished) == " M params.yaml\n"
    assert {part: files(finished / "models" / part) for part in MODELS} == before
    run("git", "checkout", "params.yaml", cwd=finished)
    assert re.findall(r"[Ss]tage '(\w+)' is cached|Running stage '(\w+)'", run("dvc", "repro", cwd=finished)) == [
        ("check_params", "")
    ]
    assert "up to date" in run("dvc", "status", cwd=finished)


def test_dvc_itself_refuses_a_name_that_params_yaml_does_not_have_before_any_work(finished: Path) -> None:
    before = run("dvc", "status", cwd=finished)
    assert "lora.rank" in run("dvc", "exp", "run", "-S", "lora.rank=8", cwd=finished, fails=True)
    assert run("git", "status", "--porcelain", cwd=finished) == ""
    assert run("dvc", "status", cwd=finished) == before
    assert "lora.r" in (finished / "data/knobs.txt").read_text().splitlines()


class Charts(html.parser.HTMLParser):
    """The SVG charts of a page: each one's texts and the (colour, path) of its lines."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[list[str]] = []
        self.lines: list[set[tuple[str, str]]] = []
        self._in_line = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "svg" and "marks" in values.get("class", ""):
            self.texts.append([])
            self.lines.append(set())
        if tag == "g":
            self._in_line = "mark-line" in values.get("class", "")
        if tag == "path" and self._in_line and "stroke" in values:
            self.lines[-1].add((values["stroke"], values["d"]))

    def handle_data(self, data: str) -> None:
        if self.texts and data.strip():
            self.texts[-1].append(data.strip())


def test_plots_diff_draws_both_experiments_in_every_chart_without_a_network(
    tried: tuple[Path, str], tmp_path: Path
) -> None:
    import vl_convert

    browser = program("chromium")
    folder, _ = tried
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv/vega.js").write_text("{" + vl_convert.javascript_bundle() + "}")  # as the Makefile does
    # As editors ask for them.
    listed = json.loads(run("dvc", "plots", "diff", "main", "rank-8", "--json", "--split", cwd=folder))
    names = ["loss", "eval loss", "scores", "size and quality", "size and damage", "token lengths"]
    assert list(listed["data"]) == names
    assert "errors" not in listed
    run("dvc", "plots", "diff", "main", "rank-8", cwd=folder)
    page = f"file://{folder}/dvc_plots/index.html"
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile")
    network = "--host-resolver-rules=MAP * ~NOTFOUND"
    dom = subprocess.run(
        [browser, *options, network, "--virtual-time-budget=20000", "--dump-dom", page],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    charts = Charts(dom)
    at = {title: at for at, texts in enumerate(charts.texts) for title in TITLES if title in texts}
    assert len(charts.texts) == len(at) == len(TITLES)
    for texts in charts.texts:
        assert {"main", "rank-8"} <= set(texts)
    curves = charts.lines[at[TITLES[0]]]
    assert len({colour for colour, _ in curves}) == 2
    assert len({path for _, path in curves}) == 4, "each experiment's steps and their mean"
