"""What a stage prints: plain lines of our own, seen at once; what the libraries print goes into a log instead.

llama.cpp and torch write to the file descriptors 1 and 2, past Python, so it is those that are led away.
"""

import faulthandler
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOGS = Path(".dvc/tmp/logs")  # neither Git nor DVC's cache keeps what is there
_SIGN_OF_LIFE = 60  # seconds without a line

_out: TextIO | None = None  # where our lines go while descriptor 1 leads to the log
_log: Path | None = None
_last_line = time.monotonic()


def say(text: str) -> None:
    """Print one line at once."""
    global _last_line
    _last_line = time.monotonic()
    print(text, file=_out or sys.stdout, flush=True)


def out() -> TextIO:
    """The stream that `say` prints to, for a process that a stage starts and that speaks for it."""
    return _out or sys.stdout


def libraries_say() -> str:
    """Where what a library printed can be read, to end a sentence with."""
    return f"in {_log}" if _log else "above"


def verbose() -> bool:
    """Whether the user wants to see everything."""
    return os.environ.get("PM_SENIOR_VERBOSE", "0") not in ("", "0")


def run_stage(name: str, main: Callable[[], None], *outputs: Path) -> None:
    """Run a stage as this process: a line when it starts, one with its time and what it wrote when it is done.

    From here on libraries print into .dvc/tmp/logs/<name>.log; with PM_SENIOR_VERBOSE=1 they print as ever. Our own
    errors always come through: the line of a SystemExit, the traceback of anything else, and of a crash in native
    code the Python line that led there. One of several processes under torch's launcher leaves the two lines to the
    stage that started it, and only the first of them speaks at all.
    """
    launched = "LOCAL_RANK" in os.environ
    started = time.monotonic()
    errors = _lead_away(name, launched)
    if not launched:
        say(f"{name}: started {time.strftime('%H:%M:%S')}" + (f", libraries write to {_log}" if _log else ""))
    try:
        with _signs_of_life(name, started):
            main()
    except BaseException as error:
        sys.stderr.flush()
        after = duration(time.monotonic() - started)
        if isinstance(error, KeyboardInterrupt):  # its traceback goes to the log
            say(f"{name}: interrupted after {after}")
        else:
            os.dup2(errors, 2)
            if not isinstance(error, SystemExit):
                say(f"{name}: broke off after {after}; what libraries printed is {libraries_say()}")
        raise
    if not launched:
        made = ", ".join(f"{path} ({size(path)})" for path in outputs)
        say(f"{name}: done in {duration(time.monotonic() - started)}" + (f"; {made}" if made else ""))


def _lead_away(name: str, launched: bool) -> int:
    """Give descriptors 1 and 2 to the log and keep the old 1 for `say`; return a descriptor for errors."""
    global _out, _log
    errors = os.dup(1 if launched else 2)  # a launcher's own errors go to the log
    faulthandler.enable(errors)
    if not verbose():
        log = LOGS / f"{name}.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if launched else os.O_TRUNC), 0o644)
        except OSError as error:
            raise SystemExit(f"{log}: {error.strerror}. Make room for it, or set PM_SENIOR_VERBOSE=1.") from None
        sys.stdout.flush()
        _log, _out = log, os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    if os.environ.get("RANK", "0") != "0":
        _out = io.StringIO()
    return errors


@contextmanager
def _signs_of_life(name: str, started: float) -> Iterator[None]:
    """Say that a stage is at work whenever it has printed nothing for a minute."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(max(0.1, _last_line + _SIGN_OF_LIFE - time.monotonic())):
            if time.monotonic() - _last_line >= _SIGN_OF_LIFE:
                say(f"  {name}: at work for {duration(time.monotonic() - started)}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Pace:
    """When the next line of progress is due: after 5 s, 10 s, 20 s, then once a minute."""

    def __init__(self) -> None:
        self._wait, self._last = 5.0, time.monotonic()

    def due(self) -> bool:
        """Whether to print one now; if so, the next is due later."""
        if time.monotonic() - self._last < self._wait:
            return False
        self._wait, self._last = min(2 * self._wait, 60.0), time.monotonic()
        return True


def duration(seconds: float) -> str:
    """A time as people write it: `0.4 s`, `41 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(path: Path) -> str:
    """The size of a file, or of all files under a folder, as people write it: `7.1 MiB`."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return in_units(sum(file.stat().st_size for file in files))


def in_units(count: float) -> str:
    """A number of bytes as people write it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
