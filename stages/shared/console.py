"""What a stage prints: one flushed line at a time, so that progress is visible when the output is not a terminal."""

from pathlib import Path


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def size(path: Path) -> str:
    """The size of a file, or of all files under a folder, as people write it: `7.1 MiB`."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    amount = float(sum(file.stat().st_size for file in files))
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
