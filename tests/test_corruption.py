"""Damage: a flipped bit or a cut in whatever a stage reads is named before anything is made of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stages import baseline, evaluate, format_chatml, merge, quantize_gguf, validate
from stages.shared.checksums import damage, write_sums
from tests.small_repository import GGUF, ROOT, run

FOLDERS = {"models/adapter": merge, "models/merged": quantize_gguf, "models/gguf": evaluate}


def flip(file: Path) -> None:
    """One bit in the middle, under a mode that DVC trusts: as a disk does it."""
    mode = file.stat().st_mode
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.seek(file.stat().st_size // 2)
        byte = content.read(1)
        content.seek(-1, 1)
        content.write(bytes([byte[0] ^ 16]))
    file.chmod(mode)


def cut(file: Path) -> None:
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size - 2)


def refusal(main: Callable[[], None]) -> str:
    """The line that a stage ends with; makes sure that it left models/ and reports/ as they were."""
    everything = [file for folder in ("models", "data", "reports") for file in Path(folder).rglob("*")]
    before = {file: file.stat().st_mtime_ns for file in everything}
    with pytest.raises(SystemExit) as stop:
        main()
    everything = [file for folder in ("models", "data", "reports") for file in Path(folder).rglob("*")]
    assert {file for file in everything if file.is_file()} == {file for file in before if file.is_file()}
    assert all(file.stat().st_mtime_ns == before[file] for file in everything if file.is_file())
    text = str(stop.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("harm", [flip, cut])
def test_damage_to_any_file_of_a_model_folder_is_named_by_the_stage_that_reads_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(finished)
    for folder, stage in FOLDERS.items():
        files = [file for file in sorted(Path(folder).iterdir()) if file.name != "XXH128SUMS"]
        assert len(files) >= 3
        for file in files:
            untouched = file.read_bytes()
            harm(file)
            line = refusal(stage.main)
            assert line.startswith(f"{file}: damaged: its XXH3-128 is ") and f"`find -L {folder} .dvc/cache " in line
            file.chmod(0o644)
            file.write_bytes(untouched)
        sums = Path(folder, "XXH128SUMS")
        harm(sums)
        assert refusal(stage.main).startswith(f"{folder}/")
        sums.unlink()
        assert refusal(stage.main).startswith(f"{sums}: not found. Run `dvc repro -f ")


def test_damage_to_the_base_is_named_by_every_stage_that_reads_that_part(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    tokenizer, weights = Path("models/base-tiny/tokenizer.json"), Path("models/base-tiny/model.safetensors")
    for file, what, stages in (
        (tokenizer, "config or tokenizer", (validate, format_chatml, merge, baseline)),
        (weights, "weights", (merge, baseline)),
    ):
        untouched = file.read_bytes()
        flip(file)
        for stage in stages:
            assert refusal(stage.main).startswith(f"models/base-tiny: its {what} changed: its digest is ")
        file.write_bytes(untouched)


def test_a_damaged_cache_object_is_never_measured_and_the_remedy_in_the_line_works(finished: Path) -> None:
    """Damaged through a hard link and still read-only, a file that DVC believes in wherever it links it."""
    run("dvc", "checkout", "--relink", cwd=finished)
    untouched = (finished / GGUF).read_bytes()
    flip(finished / GGUF)
    (finished / GGUF).unlink()
    run("dvc", "checkout", "quantize_gguf", cwd=finished)
    assert (finished / GGUF).read_bytes() != untouched
    for command in (("dvc", "repro", "--force", "--single-item", "evaluate"), ("python", "-m", "tools.verify")):
        said = run(*command, cwd=finished, fails=True)
        (line,) = [line for line in said.splitlines() if line.startswith(f"{GGUF}: damaged: ")]
        assert "Traceback" not in said
    run("sh", "-c", line.split("`")[1], cwd=finished)
    run(*line.split("`")[3].split(), cwd=finished)
    assert (finished / GGUF).read_bytes() == untouched
    assert run("python", "-m", "tools.verify", cwd=finished) == "intact: models/adapter, models/merged, models/gguf\n"


def test_a_damaged_dvc_lock_is_named_or_not_believed(finished: Path) -> None:
    lock = finished / "dvc.lock"
    text = lock.read_text()
    lock.write_text(text[:20])
    assert "dvc.lock" in run("dvc", "status", cwd=finished, fails=True)
    lock.write_bytes(text.encode()[:300] + b"\xad" + text.encode()[301:])
    assert "dvc.lock" in run("dvc", "status", cwd=finished, fails=True)
    shipped = text.index("path: models/gguf", text.index("  quantize_gguf:"))
    place = text.index("md5: ", text.index("md5: ", shipped) - 5) + 5
    lock.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])
    status = run("dvc", "status", "quantize_gguf", cwd=finished)
    assert "changed outs" in status and "models/gguf" in status
    lock.write_text(text[: text.index("  quantize_gguf:")])
    assert "quantize_gguf" in run("dvc", "status", cwd=finished)


def test_the_sums_are_read_by_the_program_whose_format_they_have(tmp_path: Path) -> None:
    """The digest of `xxh128sum` for this text, from its own documentation's test vectors being big-endian hex."""
    (tmp_path / "a").write_bytes(b"")
    write_sums(tmp_path)
    assert (tmp_path / "XXH128SUMS").read_text() == "99aa06d3014798d86001c324468d497f  a\n"
    assert damage(tmp_path) is None


def test_make_pipeline_ends_with_a_look_at_what_it_made() -> None:
    rule = (ROOT / "Makefile").read_text().split("pipeline: $(READY)\n")[1].split("\n\n")[0]
    assert rule.index("dvc repro") < rule.index("python -m tools.verify")
