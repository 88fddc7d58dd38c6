"""console.run_stage: whole processes as DVC starts them, whose libraries print past Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stages.shared import console
from stages.shared.console import Pace, duration

ROOT = Path(__file__).parents[2]
LOG = Path(".dvc/tmp/logs/merge.log")
# What libraries do: print, warn, log, and write to the descriptors from C; then a line of our own.
CHATTER = """
import ctypes, logging, os, subprocess, sys, warnings
from pathlib import Path
from stages.shared.console import run_stage, say
def main():
    print("noise 1")
    warnings.warn("noise 2")
    logging.warning("noise 3")
    libc = ctypes.CDLL(None)
    libc.dprintf(1, b"noise 4\\n")
    libc.dprintf(2, b"noise 5\\n")
    subprocess.run(["sh", "-c", "echo noise 6; echo noise 7 >&2"])
    say("  half way")
    Path("made").write_bytes(bytes(2048))
    {then}
"""


def process(folder: Path, then: str = "pass", **environment: str) -> "subprocess.CompletedProcess[str]":
    code = CHATTER.format(then=then) + 'run_stage("merge", main, Path("made"))'
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def noises(text: str) -> list[str]:
    return sorted(set(re.findall(r"noise \d", text)))


ALL = [f"noise {number}" for number in range(1, 8)]


def test_a_stage_prints_its_own_lines_with_time_and_size_and_its_libraries_write_to_a_log(tmp_path: Path) -> None:
    done = process(tmp_path)
    started, half_way, ended = done.stdout.splitlines()
    assert re.fullmatch(rf"merge: started \d\d:\d\d:\d\d, libraries write to {LOG}", started)
    assert half_way == "  half way"
    assert re.fullmatch(r"merge: done in \d\.\d s; made \(2\.0 KiB\)", ended)
    assert (done.stderr, done.returncode) == ("", 0)
    assert noises((tmp_path / LOG).read_text()) == ALL


def test_the_log_is_that_of_the_last_run(tmp_path: Path) -> None:
    (tmp_path / LOG).parent.mkdir(parents=True)
    (tmp_path / LOG).write_text("an earlier run\n")
    process(tmp_path)
    assert "earlier" not in (tmp_path / LOG).read_text()


def test_verbose_lets_everything_through(tmp_path: Path) -> None:
    done = process(tmp_path, PM_SENIOR_VERBOSE="1")
    assert noises(done.stdout + done.stderr) == ALL
    assert re.match(r"merge: started \d\d:\d\d:\d\d\n", done.stdout[done.stdout.index("merge:") :])
    assert not (tmp_path / LOG).exists()


def test_a_user_mistake_is_its_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = process(tmp_path, 'raise SystemExit("params.yaml: lora.r: is 0.")')
    assert (done.stderr, done.returncode) == ("params.yaml: lora.r: is 0.\n", 1)
    assert "done in" not in done.stdout and "broke off" not in done.stdout


def test_a_bug_shows_its_traceback_and_where_the_log_is(tmp_path: Path) -> None:
    done = process(tmp_path, 'raise ValueError("a bug")')
    assert re.fullmatch(
        rf"merge: broke off after \d\.\d s; what libraries printed is in {LOG}", done.stdout.splitlines()[-1]
    )
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("ValueError: a bug\n")
    assert noises(done.stderr) == [] and done.returncode == 1


def test_a_crash_in_native_code_names_the_python_line_that_led_there(tmp_path: Path) -> None:
    done = process(tmp_path, "ctypes.string_at(0)")
    assert "Segmentation fault" in done.stderr and "string_at" in done.stderr
    assert done.returncode < 0


def test_an_interruption_is_one_line(tmp_path: Path) -> None:
    # A shell's background jobs, and all that they start, ignore it.
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    done = process(tmp_path, f"{heeded}; signal.raise_signal(signal.SIGINT)")
    assert re.fullmatch(r"merge: interrupted after \d\.\d s", done.stdout.splitlines()[-1])
    assert (done.stderr, done.returncode) == ("", -2)


def test_a_log_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / ".dvc").write_text("a file in the way")
    done = process(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"{LOG}: Not a directory. Make room for it, or set PM_SENIOR_VERBOSE=1.\n"


def test_of_several_processes_the_first_speaks_and_the_others_only_write_to_the_log(tmp_path: Path) -> None:
    first = process(tmp_path, LOCAL_RANK="0", RANK="0")
    second = process(tmp_path, 'raise SystemExit("out of memory")', LOCAL_RANK="1", RANK="1")
    assert first.stdout == "  half way\n"
    # A launcher's stderr is in the log: an error goes the other way.
    assert (second.stdout, second.stderr) == ("out of memory\n", "")
    assert (tmp_path / LOG).read_text().count("noise 1") == 2


def test_a_long_silence_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import time; from stages.shared import console\n"
        "console._SIGN_OF_LIFE = 0.1\n"
        "console.run_stage('merge', lambda: time.sleep(0.5))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.findall(r"^  merge: at work for (\d\.\d) s$", done.stdout, re.MULTILINE)[0] in ("0.1", "0.2")


def test_progress_comes_after_5_s_and_then_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    pace, lines = Pace(), []
    for second in range(1, 300):
        clock[0] = 100.0 + second
        if pace.due():
            lines.append(second)
    assert lines == [5, 15, 35, 75, 135, 195, 255]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (59.4, "59 s"),
        (59.5, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.6, "1 h 0 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_a_time_is_written_as_people_write_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text
