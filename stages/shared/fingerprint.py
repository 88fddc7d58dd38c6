"""Hashes that say what something was made from."""

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo", "bitsandbytes", "accelerate")


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def combined(parts: Iterable[str]) -> str:
    """Sixteen hex digits over several strings, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that decide what an adapter looks like."""
    return {library: version(library) for library in LIBRARIES}
