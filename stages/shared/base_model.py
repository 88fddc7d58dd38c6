"""The base model's files: a local folder, or a snapshot of a Hub repo at one exact revision."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.shared.checksums import xxh128
from stages.shared.console import Pace, in_units, say

if TYPE_CHECKING:
    from tqdm import tqdm

TOKENIZER_FILES = ["config.json", "generation_config.json", "tokenizer*", "*.jinja", "vocab.json", "merges.txt"]
WEIGHT_FILES = ["*.safetensors", "model.safetensors.index.json"]
_SMALL, _LARGE = 8, 16  # hex digits of a folder's digest that stand for either


@dataclass(frozen=True)
class Base:
    """A base model on this machine.

    Attributes:
        name: what params.yaml calls it: a folder or a Hub repo id.
        revision: the Hub's commit, or for a folder `folder_digest` of it.
        path: the folder that holds the files.

    """

    name: str
    revision: str
    path: Path


def is_folder(name: str) -> bool:
    """Whether a base named in params.yaml is a local folder; anything else is a Hub repo id."""
    return Path(name).is_dir()


def tokenizer_folder(name: str, revision: str | None, key: str) -> Path:
    """The folder with the base's config and tokenizer; for a Hub repo only these small files are fetched.

    Raises:
        SystemExit: no such folder or repo, or other files than the pinned ones.

    """
    if not is_folder(name):
        return _snapshot(name, revision, key, TOKENIZER_FILES)
    folder = Path(name)
    if revision is not None and revision[:_SMALL] != _small_digest(folder):
        raise _not_pinned(folder, "config or tokenizer", revision, key)
    return folder


def resolve_base(name: str, revision: str | None, key: str) -> Base:
    """Find the base's weights, download them if they are on the Hub, and check the pinned revision.

    Args:
        name: folder or Hub repo id.
        revision: the pin from params.yaml, or None to take what is there.
        key: the dotted name of `name` in params.yaml, for messages.

    Raises:
        SystemExit: no such folder or repo, no safetensors in it, not the pinned revision, or a damaged file.

    """
    if not is_folder(name):
        path = _snapshot(name, revision, key, TOKENIZER_FILES + WEIGHT_FILES)
        return Base(name, path.name, path)
    os.environ["HF_HUB_OFFLINE"] = "1"
    path = tokenizer_folder(name, revision, key)
    digest = folder_digest(path)
    if revision is not None and revision != digest:
        raise _not_pinned(path, "weights", revision, key)
    return Base(name, digest, path)


def exact_revision(name: str, revision: str | None, key: str) -> str:
    """The revision that `resolve_base` would find, without fetching the weights."""
    return folder_digest(Path(name)) if is_folder(name) else _snapshot(name, revision, key, ["config.json"]).name


def folder_digest(folder: Path) -> str:
    """What tells two bases apart: 8 hex digits for config and tokenizer, then 16 for every byte of the weights.

    SHA-256 over the XXH3-128 of each file: at that speed, reading is what takes the time.
    Format: https://github.com/huggingface/safetensors#format
    """
    weights = _matching(folder, WEIGHT_FILES)
    if not any(file.suffix == ".safetensors" for file in weights):
        raise SystemExit(f"{folder}: holds no .safetensors file. Name a folder with 16-bit safetensors weights.")
    for file in weights:
        if file.suffix == ".safetensors":
            _check_size(file)
    return _small_digest(folder) + _digest(weights)[:_LARGE]


def _small_digest(folder: Path) -> str:
    return _digest(_matching(folder, TOKENIZER_FILES))[:_SMALL]


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256("".join(f"{xxh128(file)}  {file.name}\n" for file in files).encode()).hexdigest()


def _check_size(file: Path) -> None:
    """Refuse a safetensors file that ends before its header or one of its tensors does."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if 8 + length > size:
            raise SystemExit(f"{file}: its header does not fit in the file. Fetch the file again.")
        try:
            header = json.loads(handle.read(length))
            ends = {name: tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise SystemExit(f"{file}: its header is no safetensors header. Fetch the file again.") from None
    for name, end in ends.items():
        if type(end) is not int or 8 + length + end > size:
            raise SystemExit(f"{file}: {name} does not fit in the file. Fetch the file again.")


def _not_pinned(folder: Path, what: str, revision: str, key: str) -> SystemExit:
    return SystemExit(
        f"{folder}: its {what} changed: its digest is {folder_digest(folder)}, params.yaml pins {key}_revision to "
        f"{revision}. Restore the folder, or set the pin to that digest to use it as it is."
    )


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
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=progress_lines()))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        fact = str(error).splitlines()[0]
        raise SystemExit(
            f"params.yaml: {key}: {name} could not be fetched: {fact}. Check the name, the network and, for a gated "
            "repo, `hf auth login`; or name a local folder."
        ) from None
    with ThreadPoolExecutor() as pool:
        list(pool.map(_check_blob, _matching(folder, patterns)))
    return folder


def _check_blob(file: Path) -> None:
    """Refuse a file of the Hub's cache whose content is not what its name there says.

    The cache names a large file by its SHA-256 and a small one as Git does; where a file system has no links, it keeps
    files without such a name, and there is nothing to hold them to.
    Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
    """
    blob = file.resolve()
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return
    if len(blob.name) == 64:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    with blob.open("rb") as handle:
        while block := handle.read(1 << 22):
            digest.update(block)
    if digest.hexdigest() != blob.name:
        raise SystemExit(f"{file}: damaged: its hash is {digest.hexdigest()}. Remove {blob} and run this again.")
