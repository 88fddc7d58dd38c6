"""What several test files share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_repository import commit, git_identity, run, traces_of, tracing_python, write_repository


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository after one real, traced `dvc repro`, committed. For copies: leave it as it is."""
    folder = tmp_path_factory.mktemp("finished")
    write_repository(folder)
    run("dvc", "repro", cwd=folder, programs=tracing_python(traces_of(folder)))
    commit(folder, "Run the pipeline")
    return folder


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """A copy of it, with its cache and outputs, to do anything with."""
    return Path(shutil.copytree(finished_once, tmp_path / "repository", symlinks=True))


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[Path], Path]:
    """Clones a repository with Git alone, as onto another machine."""

    def clone(source: Path) -> Path:
        target = tmp_path / f"clone of {source.name}"
        run("git", "clone", "--quiet", str(source), str(target), cwd=tmp_path)
        git_identity(target)
        return target

    return clone
