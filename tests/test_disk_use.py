"""What `dvc repro` leaves on the disk, and that outputs linked into the cache are safe there."""

import os
import shutil
from pathlib import Path

import pytest

from tests.small_repository import GGUF, run
from tests.test_remotes import damaged, files

MODELS = ("adapter", "merged", "gguf")


def bytes_on_disk(*folders: Path) -> int:
    """Bytes under some folders; a file with several hard links counts once."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found[path.stat().st_ino] = path.stat().st_size
    return sum(found.values())


def test_a_run_leaves_one_copy_of_each_model_file(finished_once: Path) -> None:
    """Adapter, merged weights and GGUF once each, and less than a hundredth of the model beside them."""
    models = finished_once / "models"
    once = sum(path.stat().st_size for name in MODELS for path in (models / name).rglob("*"))
    left = bytes_on_disk(*(path for path in models.iterdir() if path.name != "base-tiny"), finished_once / ".dvc")
    model = (models / "merged/model.safetensors").stat().st_size
    assert once <= left < once + 0.01 * model
    assert left < 1.6 * model
    assert not list(finished_once.rglob("*.partial"))


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_a_linked_output_is_read_only_and_a_run_replaces_it_without_touching_the_cache(
    finished: Path, link: str
) -> None:
    run("dvc", "config", "--local", "cache.type", link, cwd=finished)
    run("dvc", "checkout", "--relink", cwd=finished)
    before, cached = files(finished / "models/gguf"), files(finished / ".dvc/cache/files")
    for path in (finished / "models/gguf").iterdir():
        assert path.stat().st_mode & 0o222 == 0
        assert path.is_symlink() if link == "symlink" else path.stat().st_nlink == 2
    params = finished / "params.yaml"
    params.write_text(params.read_text().replace("q4_k_m", "q8_0"))
    run("dvc", "repro", "--single-item", "quantize_gguf", cwd=finished)
    assert (finished / "models/gguf/MiPM_Senior-Q8_0.gguf").is_file() and not (finished / GGUF).exists()
    assert damaged(finished / ".dvc/cache") == []
    assert cached.items() <= files(finished / ".dvc/cache/files").items()
    run("git", "checkout", "--force", "main", cwd=finished)
    run("dvc", "checkout", "quantize_gguf", cwd=finished)
    assert files(finished / "models/gguf") == before


def test_a_cache_on_another_disk_holds_the_only_copy(finished: Path) -> None:
    elsewhere = Path("/dev/shm") / f"pm-senior-{os.getpid()}"
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == finished.stat().st_dev:
        pytest.skip("/dev/shm is no other disk here")
    try:
        shutil.copytree(finished / ".dvc/cache", elsewhere)
        run("dvc", "cache", "dir", "--local", str(elsewhere), cwd=finished)
        run("dvc", "checkout", "--relink", cwd=finished)
        assert (finished / GGUF).resolve().is_relative_to(elsewhere)
        assert "up to date" in run("dvc", "status", cwd=finished)
    finally:
        shutil.rmtree(elsewhere)


def test_the_merged_weights_may_be_deleted_and_nothing_runs_again(finished: Path) -> None:
    shutil.rmtree(finished / "models/merged")
    assert "Running stage" not in run("dvc", "repro", "--allow-missing", cwd=finished)
    output = run("dvc", "repro", cwd=finished)
    assert output.count("Running stage") == 1 and "Running stage 'merge'" in output, "the same bytes as before"


def test_old_versions_leave_the_cache_when_they_are_collected(finished: Path) -> None:
    cached = files(finished / ".dvc/cache/files")
    params = finished / "params.yaml"
    params.write_text(params.read_text().replace("q4_k_m", "q8_0"))
    run("dvc", "repro", "--single-item", "quantize_gguf", cwd=finished)
    assert len(files(finished / ".dvc/cache/files")) > len(cached)
    run("git", "checkout", "--force", "main", cwd=finished)
    run("dvc", "checkout", cwd=finished)
    run("dvc", "gc", "--workspace", "--force", cwd=finished)
    assert files(finished / ".dvc/cache/files").items() <= cached.items()
    assert "up to date" in run("dvc", "status", cwd=finished)
