"""What a stage needs against what the machine has, told before anything is written."""

import shutil
from pathlib import Path

_GIB = 2**30


def check_disk(target: Path, folder: Path, needs: int, remedy: str) -> None:
    """Refuse to start what the disk cannot hold; the old output stays until the new one is whole.

    Args:
        target: the output, for the message.
        folder: where it is written.
        needs: bytes.
        remedy: what the user can do, as a sentence.

    """
    has = shutil.disk_usage(folder).free
    if needs > has:
        raise SystemExit(
            f"{target}: needs {needs / _GIB:.2f} GiB, the disk has {has / _GIB:.2f} GiB free. Free some, or {remedy}"
        )


def check_memory(target: Path, needs: int, remedy: str) -> None:
    """Refuse to start what would be killed for want of memory; needs in bytes."""
    import psutil

    has = psutil.virtual_memory().available
    if needs > has:
        raise SystemExit(
            f"{target}: making it takes {needs / _GIB:.2f} GiB of memory, {has / _GIB:.2f} GiB are free. {remedy}"
        )
