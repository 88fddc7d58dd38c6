"""dvc.yaml itself: what each stage declares against what its code does, and what an edit re-runs."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, Any] = PIPELINE["stages"]
IN_ORDER = ["validate", "format_chatml", "train_lora", "merge", "quantize_gguf", "baseline", "evaluate", "gate"]


def imported_modules(file: Path) -> set[Path]:
    """The project's own modules that a module imports, at any depth, itself included."""
    found = {file}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages."):
            found |= imported_modules(ROOT / f"{str(node.module).replace('.', '/')}.py")
    return found


def param_keys(file: Path) -> set[str]:
    """The sections of params.yaml that a stage reads: `params.lora` in its code is the section `lora`."""
    text = file.read_text(encoding="utf-8")
    return {name.rstrip("_") for name in re.findall(r"\bparams\.([a-z_]+)", text)} - {"yaml"}


def test_the_stages_stand_in_the_order_in_which_they_run() -> None:
    assert list(STAGES) == IN_ORDER


@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_stage_lists_exactly_the_code_that_it_imports(stage: str) -> None:
    imported = {str(file.relative_to(ROOT)) for file in imported_modules(ROOT / f"stages/{stage}.py")}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    assert declared == imported


@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_stage_lists_exactly_the_param_sections_that_it_reads(stage: str) -> None:
    own = [file for file in imported_modules(ROOT / f"stages/{stage}.py") if file.name != "params.py"]
    used = set().union(*(param_keys(file) for file in own))
    declared = {str(key).split(".")[0] for key in STAGES[stage]["params"]}
    assert declared == used


@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_stage_says_what_it_is_and_runs_as_a_module(stage: str) -> None:
    assert STAGES[stage]["desc"]
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


def test_shared_modules_do_not_import_stages() -> None:
    for file in (ROOT / "stages/shared").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages."):
                assert str(node.module).startswith("stages.shared."), f"{file.name} imports {node.module}"


class Workspace:
    """A small copy of the project under real Git and real DVC."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def repro(self) -> list[str]:
        """Run `dvc repro`; return the stages that ran, in order."""
        return re.findall(r"Running stage '(\w+)'", self.run("dvc", "repro"))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("project")
    for name in (
        "stages",
        "data",
        "dvc.yaml",
        "params.yaml",
        ".gitignore",
        ".dvcignore",
        "models/base-tiny",
        "README.md",
    ):
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "validated", "chatml")
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copyfile(source, target)
    for file, rows in (("epics.jsonl", 6), ("epics_eval.jsonl", 2)):
        lines = (root / "data" / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (root / "data" / file).write_text("".join(lines[:rows]), encoding="utf-8")
    params = (root / "params.yaml").read_text(encoding="utf-8")
    params = re.sub(r"epochs: \d+", "epochs: 1", params)
    params = re.sub(r"max_answer_tokens: \d+", "max_answer_tokens: 64", params)
    # Six examples teach nothing: the bars are another test's business.
    params = params[: params.index("gate:")] + (
        "gate:\n  method: q4_k_m\n  unconstrained: {json_valid: 0.0}\n  constrained: {}\n"
        "  baseline_at_most: {}\n  times_baseline: {}\n"
    )
    (root / "params.yaml").write_text(params, encoding="utf-8")
    space = Workspace(root)
    space.run("git", "init", "--quiet")
    space.run("dvc", "init", "--quiet")
    space.run("dvc", "config", "core.analytics", "false")
    return space


def test_the_first_repro_runs_every_stage_and_the_second_none(workspace: Workspace) -> None:
    assert sorted(workspace.repro()) == sorted(IN_ORDER)
    assert workspace.repro() == []


def test_each_edit_reruns_only_what_it_touches(workspace: Workspace) -> None:
    workspace.repro()
    workspace.edit("README.md", "\n", "\n<!-- a remark -->\n")
    assert workspace.repro() == []
    workspace.edit("params.yaml", "max_answer_tokens: 64", "max_answer_tokens: 48")
    assert sorted(workspace.repro()) == ["baseline", "evaluate", "gate"]
    workspace.edit("params.yaml", "methods: [q4_k_m]", "methods: [q4_k_m, q8_0]")
    assert workspace.repro()[:2] == ["quantize_gguf", "evaluate"]
    workspace.edit("params.yaml", "r: 16", "r: 4")
    ran = workspace.repro()
    assert ran[:4] == ["train_lora", "merge", "quantize_gguf", "evaluate"]
    assert "validate" not in ran
    workspace.edit("data/epics.jsonl", '"priority": "Alta"', '"priority": "Media"')
    assert workspace.repro()[:3] == ["validate", "format_chatml", "train_lora"]


def test_what_a_finished_run_leaves_is_whole(workspace: Workspace) -> None:
    workspace.repro()
    assert list((workspace.root / "models/gguf").glob("*.gguf"))
    assert not list((workspace.root / "models").rglob(".*partial*"))
    assert not list((workspace.root / "models/checkpoints").glob("*"))
    metrics = json.loads((workspace.root / "reports/evaluate.json").read_text(encoding="utf-8"))
    assert metrics["n"] == 2
