"""Outputs appear whole or not at all: write under a temporary name beside the target, rename at the end."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = 2**20  # bytes; the file that did not fit has taken the rest


def no_space_left(folder: Path) -> bool:
    """Whether the disk under a folder is full, so that an error in writing there needs no other explanation."""
    return shutil.disk_usage(folder).free < _FULL


def disk_is_full(target: Path) -> SystemExit:
    """The line for a user whose disk is full."""
    return SystemExit(
        f"{target}: the disk is full: no room is left in {target.parent.resolve()}. Free some (`dvc gc --workspace` "
        "removes cached files that nothing here needs any more) and run it again."
    )


def _partial(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well it becomes `target`, else it is removed.

    What a killed run left under the temporary name is removed first. DVC's lock keeps two runs apart.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    _remove(partial)
    try:
        yield partial
        _flush(partial)
        partial.replace(target)
    except BaseException as error:
        full = isinstance(error, Exception) and no_space_left(target.parent)
        _remove(partial)
        if full:
            raise disk_is_full(target) from None
        raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends well it replaces `target`, else it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    _remove(partial)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _flush(file)
        _remove(target)
        partial.replace(target)
    except BaseException as error:
        full = isinstance(error, Exception) and no_space_left(target.parent)
        _remove(partial)
        if full:
            raise disk_is_full(target) from None
        raise


def _flush(file: Path) -> None:
    # A rename may reach the disk before the bytes do: after a power cut that would be an empty output.
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
