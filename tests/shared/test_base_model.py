"""base_model: real folders of weights, and a Hub cache laid out by hand with no network behind it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.shared.base_model import exact_revision, folder_digest, resolve_base, tokenizer_folder
from tests.tiny_model import write_model

ROOT = Path(__file__).parents[2]
KEY = "base_model.train"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("made") / "base", shards=True)


@pytest.fixture
def base(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sharded model for one test to change; the name is relative, as in params.yaml."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(made, tmp_path / "models/base")
    monkeypatch.chdir(tmp_path)
    return Path("models/base")


def shards(base: Path) -> list[Path]:
    return sorted(base.glob("*.safetensors"))


def test_the_digest_is_the_same_wherever_the_folder_lies(base: Path) -> None:
    digest = folder_digest(base)
    assert re.fullmatch(r"[0-9a-f]{24}", digest)
    assert folder_digest(base) == digest
    shutil.move(base, "elsewhere")
    (Path("elsewhere") / "README.md").write_text("No weights.")
    assert folder_digest(Path("elsewhere")) == digest


def test_one_weight_of_any_tensor_changes_the_digest(base: Path) -> None:
    seen, tensors = {folder_digest(base)}, 0
    for file in shards(base):
        untouched = file.read_bytes()
        for name in load_file(file):
            changed = load_file(file)
            changed[name].view(torch.int16).flatten()[0] ^= 1
            save_file(changed, file, metadata={"format": "pt"})
            seen.add(folder_digest(base))
            tensors += 1
        file.write_bytes(untouched)
    assert len(shards(base)) > 1
    assert len(seen) == 1 + tensors


def test_the_name_of_a_shard_is_part_of_the_digest(base: Path) -> None:
    before = folder_digest(base)
    shards(base)[0].rename(base / "a.safetensors")
    assert folder_digest(base) != before


@pytest.mark.parametrize("kept", [0, 5, 8, 100, -9, -1])
def test_a_truncated_file_is_refused_by_name(base: Path, kept: int) -> None:
    file = shards(base)[-1]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(SystemExit, match=rf"^{re.escape(str(file))}: .* does not fit in the file\. Fetch the file"):
        folder_digest(base)


def test_a_file_cut_just_inside_its_header_is_refused(base: Path) -> None:
    file = shards(base)[0]
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    file.write_bytes(data[: 8 + length - 1])
    with pytest.raises(SystemExit, match="its header does not fit in the file"):
        folder_digest(base)


def test_a_pointer_that_git_lfs_left_is_refused(base: Path) -> None:
    shards(base)[0].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4096\n")
    with pytest.raises(SystemExit, match="its header does not fit in the file"):
        folder_digest(base)


def test_a_folder_without_safetensors_is_refused(base: Path) -> None:
    for file in shards(base):
        file.rename(file.with_suffix(".bin"))
    for refused in (folder_digest, lambda folder: resolve_base(str(folder), None, KEY)):
        with pytest.raises(SystemExit, match=r"^models/base: holds no \.safetensors file\. "):
            refused(base)


def test_a_folder_s_revision_is_its_digest(base: Path) -> None:
    digest = folder_digest(base)
    for pin in (None, digest):
        found = resolve_base("models/base", pin, KEY)
        assert (found.name, found.revision, found.path) == ("models/base", digest, base)
    assert exact_revision("models/base", None, KEY) == digest
    assert tokenizer_folder("models/base", None, KEY) == base


def test_other_weights_than_the_pinned_ones_are_refused_with_both_digests(base: Path) -> None:
    pin = folder_digest(base)
    file = shards(base)[0]
    tensors = load_file(file)
    next(iter(tensors.values())).view(torch.int16).flatten()[0] ^= 1
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(SystemExit) as refusal:
        resolve_base("models/base", pin, KEY)
    now = folder_digest(base)
    assert now != pin
    assert str(refusal.value) == (
        f"models/base: its weights changed: its digest is {now}, params.yaml pins base_model.train_revision to {pin}. "
        "Restore the folder, or set the pin to that digest to use it as it is."
    )
    assert tokenizer_folder("models/base", pin, KEY) == base, "the weights are not looked at for the tokenizer alone"


def test_any_flipped_bit_of_any_file_that_is_read_is_refused(base: Path) -> None:
    pin = folder_digest(base)
    files = [*shards(base), base / "tokenizer.json", base / "config.json", base / "model.safetensors.index.json"]
    for file in files:
        untouched = file.read_bytes()
        for place in (9, len(untouched) // 2, len(untouched) - 1):
            file.write_bytes(untouched[:place] + bytes([untouched[place] ^ 4]) + untouched[place + 1 :])
            with pytest.raises(SystemExit) as refusal:
                resolve_base("models/base", pin, KEY)
            assert re.match(rf"{base}: its \w+|{file}: ", str(refusal.value))
            assert "\n" not in str(refusal.value)
        file.write_bytes(untouched)
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"^models/base: its config or tokenizer changed: "):
        tokenizer_folder("models/base", pin, KEY)


@pytest.mark.parametrize(
    "name",
    [
        "base-tiny",
        "models/no/such",
        "./modelos",
        "../base",
        "owner/",
        "own er/name",
        "a/b\n",
        "/x/y",
        "a/n--m",
        "a/n.git",
    ],
)
def test_a_name_that_is_neither_folder_nor_repo_is_refused_by_its_key(base: Path, name: str) -> None:
    for refused in (resolve_base, exact_revision, tokenizer_folder):
        with pytest.raises(SystemExit) as refusal:
            refused(name, None, "base_model.merge")
        fact = f"params.yaml: base_model.merge: {name!r} is neither a folder here nor a Hub repo id (owner/name)."
        assert str(refusal.value) == fact


def offline(home: Path, code: str) -> "subprocess.CompletedProcess[str]":
    """Run code with this Hub cache and no network: huggingface_hub reads both when it is imported."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONPATH": str(ROOT)}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", f"from stages.shared.base_model import *\n{code}"]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)


def write_hub_cache(base: Path, home: Path) -> list[Path]:
    """A Hub cache of one repo as the Hub's client lays it out; its files, which are links to blobs."""
    repo = home / "hub/models--owner--name"
    snapshot = repo / "snapshots" / COMMIT
    for folder in (repo / "refs", repo / "blobs", snapshot):
        folder.mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    for file in base.iterdir():
        content = file.read_bytes()
        small = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()  # what `git hash-object` says
        blob = repo / "blobs" / (hashlib.sha256(content).hexdigest() if file in shards(base) else small)
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return sorted(snapshot.iterdir())


def test_a_repo_in_the_cache_has_its_commit_as_revision(base: Path, tmp_path: Path) -> None:
    write_hub_cache(base, tmp_path)
    code = (
        "found = resolve_base('owner/name', None, 'base_model.train')\n"
        "print(found.revision, exact_revision('owner/name', 'main', 'k'), len(list(found.path.glob('*.safetensors'))))"
    )
    done = offline(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{COMMIT} {COMMIT} {len(shards(base))}"


def test_a_damaged_file_of_the_hub_s_cache_is_refused_by_name(base: Path, tmp_path: Path) -> None:
    files = {file.name: file for file in write_hub_cache(base, tmp_path)}
    for name in (shards(base)[-1].name, "tokenizer.json"):
        blob = files[name].resolve()
        untouched = blob.read_bytes()
        blob.write_bytes(untouched[:-1] + bytes([untouched[-1] ^ 1]))
        done = offline(tmp_path, "resolve_base('owner/name', None, 'base_model.train')")
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{files[name]}: damaged: its hash is ") and f"Remove {blob} and run" in line
        blob.write_bytes(untouched)


def test_a_repo_that_cannot_be_fetched_is_refused_in_one_line(tmp_path: Path) -> None:
    done = offline(tmp_path, "resolve_base('owner/name', None, 'base_model.train')")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("params.yaml: base_model.train: owner/name could not be fetched: ")
    assert "or name a local folder." in line
