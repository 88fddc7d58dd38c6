"""dvc.yaml itself: what each stage declares against what its code does, and what an edit re-runs."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.small_repository import run

ROOT = Path(__file__).parent.parent
PIPELINE: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, Any] = PIPELINE["stages"]
SECTIONS = set(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
IN_ORDER = "check_params validate format_chatml train_lora merge quantize_gguf baseline evaluate gate report".split()


def imported_modules(file: Path) -> set[Path]:
    """The project's own modules that a module imports, at any depth, itself included."""
    found, waiting = set(), [file]
    while waiting:
        found.add(module := waiting.pop())
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages."):
                imported = ROOT / f"{str(node.module).replace('.', '/')}.py"
                if imported not in found:
                    waiting.append(imported)
    return found


def sections_read(file: Path) -> set[str]:
    """The sections of params.yaml that a module names: `params.lora`, or `params.model_dump(include={"lora"})`."""
    text = file.read_text(encoding="utf-8")
    named = set(re.findall(r"\bparams\.([a-z_]+)", text))
    for included in re.findall(r"params\.model_dump\(include=\{([^}]*)\}", text):
        named |= set(re.findall(r'"([a-z_]+)"', included))
    return {name.rstrip("_") for name in named} & SECTIONS


def test_the_stages_stand_in_the_order_in_which_they_run() -> None:
    assert list(STAGES) == IN_ORDER


@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_stage_lists_exactly_the_code_that_it_imports(stage: str) -> None:
    imported = {str(file.relative_to(ROOT)) for file in imported_modules(ROOT / f"stages/{stage}.py")}
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    assert declared == imported


@pytest.mark.parametrize("stage", IN_ORDER[1:])  # check_params depends on the whole file
def test_a_stage_declares_the_param_sections_that_it_reads_and_no_other(stage: str) -> None:
    file = ROOT / f"stages/{stage}.py"
    declared = {str(key).split(".")[0] for key in STAGES[stage]["params"]}
    assert sections_read(file) <= declared
    assert declared <= set().union(*map(sections_read, imported_modules(file)))


@pytest.mark.parametrize("stage", IN_ORDER)
def test_a_stage_says_what_it_is_and_runs_as_a_module(stage: str) -> None:
    assert STAGES[stage]["desc"]
    assert STAGES[stage]["cmd"] == f"python -m stages.{stage}"


def test_shared_modules_do_not_import_stages() -> None:
    for file in (ROOT / "stages/shared").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stages."):
                assert str(node.module).startswith("stages.shared."), f"{file.name} imports {node.module}"


def ran(text: str) -> list[str]:
    return sorted(re.findall(r"Running stage '(\w+)'", text), key=IN_ORDER.index)


def touched(repository: Path) -> list[str]:
    """The stages that `dvc repro` would run if each of them wrote something new, as check_params never does."""
    return ran(run("dvc", "repro", "--dry", "--force-downstream", "--downstream", "validate", cwd=repository))


def set_param(repository: Path, knob: str, value: Any) -> None:
    yaml = YAML(typ="safe")
    params = yaml.load(repository / "params.yaml")
    section, key = knob.split(".")
    assert params[section][key] != value
    params[section][key] = value
    yaml.dump(params, repository / "params.yaml")


def onward(stage: str) -> list[str]:
    """A stage and those after it; of these baseline hangs on the data alone."""
    after = IN_ORDER[IN_ORDER.index(stage) :]
    return [name for name in after if name != "baseline" or stage in ("validate", "format_chatml")]


@pytest.mark.parametrize(
    ("knob", "value", "stages"),
    [
        ("validate.max_similarity", 0.9, onward("validate")),
        ("format_chatml.system_prompt", "Eres un Product Manager.", onward("format_chatml")),
        ("lora.r", 8, onward("train_lora")),
        ("train.epochs", 2, onward("train_lora")),
        ("merge.dtype", "float16", onward("merge")),
        ("quantize_gguf.methods", ["q4_k_m", "q8_0"], onward("quantize_gguf")),
        ("evaluate.methods", ["q8_0"], onward("evaluate")),
        # The base is asked as the tuned model is: what decides how one answers decides it for both.
        ("evaluate.max_answer_tokens", 8, ["baseline", *onward("evaluate")]),
        ("evaluate.parallel", 1, ["baseline", *onward("evaluate")]),
        ("gate.unconstrained", {"json_valid": 0.5}, ["gate"]),
    ],
)
def test_a_knob_reruns_the_stages_that_heed_it_and_those_after_them(
    finished: Path, knob: str, value: Any, stages: list[str]
) -> None:
    set_param(finished, knob, value)
    assert touched(finished) == stages


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("README.md", "Epics", "software Epics", []),
        ("params.yaml", "# examples per", "# Examples per", []),
        ("data/epics.jsonl", "Portal de facturas", "Portal de las facturas", onward("validate")),
        ("data/epics_eval.jsonl", "Portal de becas", "Portal de las becas", onward("validate")),
        ("stages/train_lora.py", "import json\n", "import json\nimport math\n", onward("train_lora")),
        ("stages/gate.py", "import json\n", "import json\nimport math\n", ["gate"]),
    ],
)
def test_an_edited_line_reruns_the_stages_that_read_the_file_and_those_after_them(
    finished: Path, file: str, old: str, new: str, stages: list[str]
) -> None:
    (finished / "README.md").write_text("It writes Epics.\n", encoding="utf-8")
    text = (finished / file).read_text(encoding="utf-8")
    assert old in text
    (finished / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    assert touched(finished) == stages


def test_a_second_repro_runs_nothing_and_a_rerun_stops_where_nothing_new_came_out(finished: Path) -> None:
    again = run("dvc", "repro", cwd=finished)
    assert ran(again) == []
    assert "Data and pipelines are up to date." in again
    set_param(finished, "gate.baseline_at_most", {})
    assert ran(run("dvc", "repro", cwd=finished)) == ["check_params", "gate"]
    set_param(finished, "validate.max_similarity", 0.99)
    assert ran(run("dvc", "repro", cwd=finished)) == ["check_params", "validate"]
    assert touched(finished) == []
