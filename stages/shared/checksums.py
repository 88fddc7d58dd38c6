"""What the files of a model folder hashed to when they were written, kept beside them for whoever reads them.

XXH3-128 finds damage at the speed of memory; it is no proof against somebody who can write the folder.
Format: that of `xxh128sum`, so that `xxhsum --check XXH128SUMS` reads it too (https://github.com/Cyan4973/xxHash).
"""

from collections.abc import Mapping
from pathlib import Path

from stages.shared.atomic import atomic_file

NAME = "XXH128SUMS"
_BLOCK = 1 << 22  # bytes


def xxh128(file: Path) -> str:
    """XXH3-128 of a file's bytes, as 32 hex digits."""
    import xxhash

    digest = xxhash.xxh3_128()
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_sums(folder: Path, known: Mapping[str, str] | None = None) -> None:
    """Write XXH128SUMS for all files of a flat folder; `known` are hashes by name, taken while writing."""
    known = known or {}
    names = sorted(file.name for file in folder.iterdir() if file.name != NAME)
    lines = [f"{known.get(name) or xxh128(folder / name)}  {name}\n" for name in names]
    with atomic_file(folder / NAME) as path:
        path.write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> tuple[Path, str] | None:
    """The first file that is not as `write_sums` found it, and what is wrong with it; None if all are."""
    sums = folder / NAME
    if not sums.is_file():
        return sums, "not found"
    lines = (line.partition("  ") for line in sums.read_bytes().decode("utf-8", "replace").splitlines())
    recorded = {name: digest for digest, _, name in lines}
    present = {file.name for file in folder.iterdir()} - {NAME}
    for name in sorted(present | recorded.keys()):
        file = folder / name
        if name not in present:
            return file, f"not found, and {sums} has it"
        if name not in recorded:
            return file, f"{sums} does not have it"
        if (found := xxh128(file)) != recorded[name]:
            return file, f"damaged: its XXH3-128 is {found}, {sums} has {recorded[name]}"
    return None


def check_sums(folder: Path, stage: str) -> None:
    """Refuse a folder whose files are not those that a stage wrote.

    Raises:
        SystemExit: naming the first file that is damaged, missing or strange.

    """
    if found := damage(folder):
        file, fact = found
        remedy = f"Run `dvc repro -f {stage}`."
        if fact.startswith("damaged"):
            # A link into DVC's cache is damaged there too, and DVC believes what is read-only: both have to go.
            both = f"-samefile {file} -delete -o -samefile {folder / NAME} -delete"
            remedy = f"`find -L {folder} .dvc/cache {both}`, then `dvc repro {stage}` makes it again."
        raise SystemExit(f"{file}: {fact}. {remedy}")
