"""The base model's files: a local folder, or a snapshot of a Hub repo at one exact revision."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.shared.console import Pace, in_units, say

if TYPE_CHECKING:
    from tqdm import tqdm

TOKENIZER_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.jinja", "vocab.json", "merges.txt"]
WEIGHT_FILES = ["*.safetensors", "model.safetensors.index.json"]
_SAMPLE = 64 * 1024


@dataclass(frozen=True)
class Base:
    """A base model on this machine.

    Attributes:
        name: what params.yaml calls it: a folder or a Hub repo id.
        revision: the Hub's commit, or for a folder `weights_digest` of it.
        path: the folder that holds the files.

    """

    name: str
    revision: str
    path: Path


def is_folder(name: str) -> bool:
    """Whether a base named in params.yaml is a local folder; anything else is a Hub repo id."""
    return Path(name).is_dir()


def tokenizer_folder(name: str, revision: str | None, key: str) -> Path:
    """The folder with the base's config and tokenizer; for a Hub repo only these small files are fetched."""
    return Path(name) if is_folder(name) else _snapshot(name, revision, key, TOKENIZER_FILES)


def resolve_base(name: str, revision: str | None, key: str) -> Base:
    """Find the base's weights, download them if they are on the Hub, and check the pinned revision.

    Args:
        name: folder or Hub repo id.
        revision: the pin from params.yaml, or None to take what is there.
        key: the dotted name of `name` in params.yaml, for messages.

    Raises:
        SystemExit: no such folder or repo, no safetensors in it, or not the pinned revision.

    """
    if not is_folder(name):
        path = _snapshot(name, revision, key, TOKENIZER_FILES + WEIGHT_FILES)
        return Base(name, path.name, path)
    os.environ["HF_HUB_OFFLINE"] = "1"
    path = Path(name)
    digest = weights_digest(path)
    if revision is not None and revision != digest:
        raise SystemExit(
            f"{path}: its weights' digest is {digest}, params.yaml pins {key}_revision to {revision}. "
            f"Restore the folder, or set the pin to {digest} to use these weights."
        )
    return Base(name, digest, path)


def exact_revision(name: str, revision: str | None, key: str) -> str:
    """The revision that `resolve_base` would find, without fetching the weights."""
    return weights_digest(Path(name)) if is_folder(name) else _snapshot(name, revision, key, ["config.json"]).name


def weights_digest(folder: Path) -> str:
    """Sixteen hex digits that tell two sets of weights apart at any size.

    SHA-256 over every safetensors file's name, header and the first 64 KiB of each tensor: reading 28 GB to hash
    them all would take longer than to quantize them.
    Format: https://github.com/huggingface/safetensors#format
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SystemExit(f"{folder}: holds no .safetensors file. Name a folder with 16-bit safetensors weights.")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            size = file.stat().st_size
            length = int.from_bytes(handle.read(8), "little")
            if 8 + length > size:
                raise SystemExit(f"{file}: its header does not fit in the file. Fetch the file again.")
            header = handle.read(length)
            digest.update(file.name.encode() + header)
            for name, tensor in json.loads(header).items():
                if name != "__metadata__":
                    start, end = tensor["data_offsets"]
                    if 8 + length + end > size:
                        raise SystemExit(f"{file}: {name} does not fit in the file. Fetch the file again.")
                    handle.seek(8 + length + start)
                    digest.update(handle.read(min(_SAMPLE, end - start)))
    return digest.hexdigest()[:16]


def progress_lines() -> type["tqdm[Any]"]:
    """A tqdm that prints a plain line now and then, for the bytes that arrive."""
    from tqdm import tqdm

    pace = Pace()

    class Lines(tqdm):  # type: ignore[misc]
        def display(self, *_: Any, **__: Any) -> None:
            if self.unit == "B" and self.n and pace.due():
                say(f"  {in_units(self.n)} of {in_units(self.total)} fetched")

    return Lines


def _snapshot(name: str, revision: str | None, key: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        is_repo = re.fullmatch(r"[\w.-]+/[\w.-]+", name)
    except HFValidationError:
        is_repo = None
    if not is_repo:
        raise SystemExit(f"params.yaml: {key}: {name!r} is neither a folder here nor a Hub repo id (owner/name).")
    say(f"{name}: fetching from the Hub what the local cache lacks (revision {revision or 'main'})")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=progress_lines()))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        fact = str(error).splitlines()[0]
        raise SystemExit(
            f"params.yaml: {key}: {name} could not be fetched: {fact}. Check the name, the network and, for a gated "
            "repo, `hf auth login`; or name a local folder."
        ) from None
