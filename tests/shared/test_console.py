"""console: lines that are seen at once, sizes as people write them."""

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from stages.shared.console import say, size

ROOT = Path(__file__).parents[2]
WAITS = "import sys; from stages.shared.console import say; say('50 %'); sys.stdin.read()"


def test_a_line_is_seen_through_a_pipe_while_the_stage_still_runs() -> None:
    command = [sys.executable, "-c", WAITS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stage:
        assert stage.stdin and stage.stdout
        # Unflushed, the line would come only when the process ends, and it ends only when its input does.
        ready, _, _ = select.select([stage.stdout], [], [], 20)
        line = stage.stdout.readline() if ready else b""
        still_running = stage.poll() is None
        stage.stdin.close()
    assert line == b"50 %\n"
    assert still_running


def test_a_line_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say("año: 7,1 MiB")
    assert capsys.readouterr().out == "año: 7,1 MiB\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 103, "1023.9 KiB"),
        (7_450_000, "7.1 MiB"),
        (3 * 1024**3 // 2, "1.5 GiB"),
        (2500 * 1024**3, "2500.0 GiB"),
    ],
)
def test_a_size_is_written_in_the_largest_unit_that_fits(tmp_path: Path, count: int, text: str) -> None:
    file = tmp_path / "weights"
    with file.open("wb") as handle:
        handle.truncate(count)  # sparse: it takes no room
    assert size(file) == text


def test_the_size_of_a_folder_is_that_of_all_files_under_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(1000))
    (tmp_path / "a/two").write_bytes(bytes(1000))
    (tmp_path / "a/b/.three").write_bytes(bytes(560))
    assert size(tmp_path) == "2.5 KiB"
    assert size(tmp_path / "a") == "1.5 KiB"
