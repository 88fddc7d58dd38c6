"""What several test files share."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from tests.small_repository import (
    commit,
    git_identity,
    run,
    traces_of,
    tracing_python,
    without_network,
    write_repository,
)

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure() -> None:
    """Give each of several pytest workers its share of the cores, and all that it starts with it.

    llama.cpp and torch take every core they see and wait for one another by spinning: two such processes that share
    two cores take many times as long as one after the other.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1 and hasattr(os, "sched_setaffinity"):
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::workers] or cores)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small repository after one real, traced, offline `dvc repro`, committed. For copies: leave it as it is.

    The first worker that needs it makes it, for all of them.
    """
    base = tmp_path_factory.getbasetemp()
    note = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished.txt"
    with FileLock(f"{note}.lock"):
        if not note.exists():
            folder = tmp_path_factory.mktemp("finished")
            write_repository(folder)
            programs = tracing_python(traces_of(folder))
            run(*without_network(programs / "interfaces"), "dvc", "repro", cwd=folder, programs=programs)
            commit(folder, "Run the pipeline")
            note.write_text(str(folder))
    return Path(note.read_text())


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
