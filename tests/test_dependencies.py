"""dvc.yaml against what the stages really open, from a trace of a whole run."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.servers import program
from tests.small_repository import ROOT, run, traces_of

STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
FREE = [
    "params.yaml",
    "models/base-tiny",  # pinned by base_model's revisions in params.yaml
    *("models/checkpoints", "models/baseline.partial", "unsloth_compiled_cache"),  # scratch
    *(".git", ".gitignore", ".dvc", ".dvcignore"),  # DVCLive looks for them
]
ORDER_ONLY = ["data/knobs.txt"]  # makes validate wait for check_params


def names(entries: list[Any]) -> list[str]:
    """Paths of deps or outs, with or without settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def opened(trace: Path, root: Path) -> set[str]:
    """The repository's files that a stage opened itself; what git reads for it is git's affair."""
    found, others = set(), set()
    for line in trace.read_text(errors="replace").splitlines():
        process, _, call = line.partition(" ")
        if call.lstrip().startswith("execve(") and "python" not in call.split('"')[1]:
            others.add(process)
        path = re.search(r"= \d+<([^>]+)>$", line)
        if path and process not in others and Path(path[1]).is_relative_to(root):
            found.add(_source(Path(path[1]).relative_to(root)))
    return {name for name in found if not (root / name).is_dir()}


def _source(path: Path) -> str:
    """The module of a compiled one; the target of a file that is renamed at the end."""
    if path.parent.name == "__pycache__":
        return str(path.parent.with_name(f"{path.name.partition('.')[0]}.py"))
    return re.sub(r"(^|/)\.([^/]+)\.partial", r"\1\2", str(path))


def within(name: str, folders: list[str]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


@pytest.fixture(params=STAGES)
def stage(request: pytest.FixtureRequest, finished_once: Path) -> tuple[dict[str, Any], set[str]]:
    """A stage of dvc.yaml, and the files that it opened."""
    program("strace")
    trace = traces_of(finished_once) / f"{request.param}.trace"
    return STAGES[request.param], opened(trace, finished_once.resolve())


def test_a_stage_opens_nothing_that_dvc_yaml_does_not_list(stage: tuple[dict[str, Any], set[str]]) -> None:
    listed, files = stage
    outs = names(listed.get("outs", []) + listed.get("metrics", []) + listed.get("plots", []))
    packages = ["stages/__init__.py", "stages/shared/__init__.py"]
    unlisted = {name for name in files if not within(name, [*names(listed["deps"]), *outs, *FREE, *packages])}
    assert unlisted == set()


def test_a_stage_opens_all_data_that_dvc_yaml_lists(stage: tuple[dict[str, Any], set[str]]) -> None:
    """Code is held to the imports elsewhere: some of it is only imported on a GPU."""
    listed, files = stage
    data = [name for name in names(listed["deps"]) if not name.startswith("stages/")]
    assert [name for name in data if not any(within(file, [name]) for file in [*files, *ORDER_ONLY])] == []
    assert "params.yaml" in files


def test_the_readme_shows_the_graph_as_it_is() -> None:
    graph = run("dvc", "dag", "--md", cwd=ROOT).strip()
    assert graph in (ROOT / "README.md").read_text(encoding="utf-8"), "paste what `dvc dag --md` prints"


def test_every_stage_says_what_it_does() -> None:
    listed = run("dvc", "stage", "list", cwd=ROOT)
    for name, stage in STAGES.items():
        assert re.search(rf"^{name} +{re.escape(stage['desc'])}", listed, re.MULTILINE)
