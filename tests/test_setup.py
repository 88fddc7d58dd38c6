"""The set-up: exact pins for what `make` installs, and no package index named anywhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8")).unwrap()["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["gpu"], *EXTRAS["test"]]
LINES = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]
# In pieces, so that this file does not name them either.
INDEX_HOSTS = [
    ".".join(pieces)
    for pieces in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("pypi", "nvidia", "com"),
        ("anaconda", "org"),
        ("piwheels", "org"),
    )
]


def pins() -> dict[str, str]:
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


def make(folder: Path, *arguments: str) -> list[str]:
    """The commands that `make` would run with a virtual environment in a folder."""
    command = ["make", "--dry-run", "--no-print-directory", f"VENV={folder}", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_constraint_is_one_exact_pin() -> None:
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    assert len(pins()) == len(LINES)


@pytest.mark.parametrize("requirement", INSTALLED)
def test_every_requirement_has_a_pin_that_satisfies_it(requirement: str) -> None:
    wanted = Requirement(requirement)
    pin = pins().get(canonicalize_name(wanted.name))
    assert pin is not None, f"{wanted.name}: add it to constraints.txt"
    assert wanted.specifier.contains(Version(pin)), f"{wanted.name}=={pin} is not {wanted.specifier}"


def test_every_installation_by_make_is_held_to_the_constraints(tmp_path: Path) -> None:
    installs = [line for line in make(tmp_path / "fresh", "test") if " install " in line]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs)
    # Unsloth comes last and brings nothing along.
    assert ["--no-deps" in line for line in installs] == [False, True]
    names = installs[1].split("--no-deps ")[1].split()
    assert [canonicalize_name(name) for name in names] == [Requirement(text).name for text in EXTRAS["train"]]


@pytest.mark.parametrize(("driver", "extras"), [(False, "test"), (True, "test,gpu")])
def test_the_gpu_extra_is_installed_where_there_is_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: bool, extras: str
) -> None:
    for name in ("make", "sh", *["nvidia-smi"] * driver):
        real = shutil.which(name) or shutil.which("true")
        (tmp_path / name).symlink_to(str(real))
    monkeypatch.setenv("PATH", str(tmp_path))
    (first, _) = [line for line in make(tmp_path / "fresh", "test") if " install " in line]
    assert first.endswith(f" --editable '.[{extras}]'")
    assert all(extra in EXTRAS for extra in extras.split(","))


NAMED = """accelerate bitsandbytes datasets dvc dvclive gguf jsonschema peft protobuf pyyaml ruamel-yaml sentencepiece
    torch transformers trl unsloth unsloth-zoo xllamacpp"""


def test_every_package_that_a_trainer_counts_on_is_named() -> None:
    named = {canonicalize_name(Requirement(text).name) for text in [*PROJECT["dependencies"], *EXTRAS["train"]]}
    assert set(NAMED.split()) <= named


def test_make_installs_nothing_twice(tmp_path: Path) -> None:
    assert len(make(tmp_path, "test")) > 1
    (tmp_path / ".ready").touch()
    assert make(tmp_path, "test") == ["python -m pytest --numprocesses 2 --dist loadfile"]


def test_no_tracked_file_names_a_package_index() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    found, read = [], 0
    for file in filter(Path.is_file, files):
        text = file.read_bytes().lower()
        read += 1
        found += [f"{file.relative_to(ROOT)}: {host}" for host in INDEX_HOSTS if host.encode() in text]
        found += [f"{file.relative_to(ROOT)}: an index" for flag in ("url",) if f"index-{flag}".encode() in text]
    assert read > 50
    assert found == []
