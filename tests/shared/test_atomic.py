"""atomic: outputs that appear whole or not at all, in real folders."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stages.shared.atomic import atomic_file, atomic_folder

ROOT = Path(__file__).parents[2]
STOPPED = [ValueError("stop"), KeyboardInterrupt(), SystemExit("stop")]
KILLED = """
import os, signal
from pathlib import Path
from stages.shared.atomic import {kind}
with {kind}(Path({target!r})) as path:
    (path / "a" if {kind!r} == "atomic_folder" else path).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_has_ended_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "reports/deep/scores.json"
    with atomic_file(target) as path:
        path.write_text("whole")
        assert path.parent == target.parent  # a rename to another disk would not be atomic
        assert not target.exists()
    assert target.read_text() == "whole"
    assert names(target.parent) == ["scores.json"]


def test_an_older_file_is_readable_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    target.write_text("old")
    with atomic_file(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", STOPPED, ids=lambda error: type(error).__name__)
def test_a_failed_block_leaves_the_old_file_untouched(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "scores.json"
    target.write_text("old")
    with pytest.raises(type(error)) as caught, atomic_file(target) as path:
        path.write_text("half")
        raise error
    assert caught.value is error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["scores.json"]


@pytest.mark.parametrize("error", STOPPED, ids=lambda error: type(error).__name__)
def test_a_failed_block_leaves_the_old_folder_untouched(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "merged"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(type(error)) as caught, atomic_folder(target) as path:
        (path / "weights").write_text("half")
        raise error
    assert caught.value is error
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["merged"]


def test_a_failed_block_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    for context in (atomic_file(tmp_path / "file"), atomic_folder(tmp_path / "folder")):
        with pytest.raises(KeyboardInterrupt), context as path:
            (path / "a" if path.is_dir() else path).write_text("half")
            raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_block_that_writes_no_file_is_an_error_and_costs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_file(target):
        pass
    assert target.read_text() == "old"
    assert names(tmp_path) == ["scores.json"]


def test_a_folder_replaces_an_older_one_with_all_its_files(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    (target / "sub").mkdir(parents=True)
    (target / "sub/stale").write_text("old")
    with atomic_folder(target) as path:
        (path / "sub").mkdir()
        (path / "sub/fresh").write_text("new")
        assert (target / "sub/stale").read_text() == "old"
    assert [str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()] == ["sub/fresh"]
    assert names(tmp_path) == ["merged"]


def test_a_folder_replaces_a_link_but_not_what_it_points_to(tmp_path: Path) -> None:
    elsewhere = tmp_path / "cache"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    target = tmp_path / "merged"
    target.symlink_to(elsewhere)
    with atomic_folder(target) as path:
        (path / "weights").write_text("new")
    assert not target.is_symlink()
    assert names(target) == ["weights"]
    assert (elsewhere / "precious").read_text() == "kept"


@pytest.mark.parametrize("kind", ["atomic_file", "atomic_folder"])
def test_a_run_killed_inside_the_block_leaves_no_target_and_the_next_one_cleans_up(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED.format(kind=kind, target=str(target))], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    if kind == "atomic_folder":
        (leftover / "stale").write_text("half")
        with atomic_folder(target) as path:
            assert names(path) == []
            (path / "a").write_text("whole")
        assert names(target) == ["a"]
        assert (target / "a").read_text() == "whole"
    else:
        with atomic_file(target) as path:
            assert not path.exists()
            path.write_text("whole")
        assert target.read_text() == "whole"
    assert names(tmp_path) == ["out"]


def test_a_leftover_of_the_other_kind_is_removed_too(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial/half").write_text("half")
    (tmp_path / ".b.partial").write_text("half")
    with atomic_file(tmp_path / "a") as path:
        path.write_text("whole")
    with atomic_folder(tmp_path / "b") as path:
        (path / "c").write_text("whole")
    assert names(tmp_path) == ["a", "b"]
    assert (tmp_path / "a").read_text() == "whole"
    assert names(tmp_path / "b") == ["c"]
