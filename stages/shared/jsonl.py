"""JSON Lines, read strictly: one object per line, UTF-8, nothing that another reader might take differently.

Format: https://jsonlines.org and RFC 8259; duplicate keys, NaN and lone surrogates, which Python's reader accepts, are
refused.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong with a file, in the words of one line.

    Attributes:
        file: where.
        line: counted from 1; 0 for the file as a whole.
        path: JSON path or column.
        fact: what is the case.
        remedy: what to do about it.
    """

    file: str
    line: int
    path: str
    fact: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.path, f"{self.fact}. {self.remedy}.") if part)


class _RefusedError(Exception):
    """A value that JSON allows or Python's reader accepts, and this format does not."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RefusedError(f"key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in one object")
    return value


def _not_json(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _RefusedError(f"{text} is too large for a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_json, parse_float=_finite)


def read_jsonl(file: Path) -> Iterator[tuple[int, Any] | Problem]:
    """Yield line number and object of each line, or the problem of a line, in the order of the file.

    Raises:
        SystemExit: if there is no such file.
    """
    name = str(file)
    line = 0
    try:
        with file.open("rb") as lines:
            for line, raw in enumerate(lines, start=1):
                yield parse_line(name, line, raw)
    except FileNotFoundError:
        raise SystemExit(f"{file}: not found. Restore it from Git.") from None
    if line == 0:
        yield Problem(name, 0, "", "is empty", "Put one example on each line")


def parse_line(file: str, line: int, raw: bytes) -> tuple[int, Any] | Problem:
    """Parse one line."""

    def problem(path: str, fact: str, remedy: str) -> Problem:
        return Problem(file, line, path, fact, remedy)

    if line == 1 and raw.startswith(_BOM):
        return problem("column 1", "begins with a byte order mark", "Save the file as UTF-8 without BOM")
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return problem(f"byte {error.start + 1}", "is not UTF-8", "Save the file as UTF-8")
    if not text.strip():
        return problem("", "is blank", "Remove the line")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return problem(f"column {error.colno}", f"not JSON: {error.msg}", "Mend the line")
    except _RefusedError as error:
        return problem("", str(error), "Keep one value that every reader takes alike")
    except RecursionError:
        return problem("", "is nested too deeply to read", "Write the example as data/README.md shows")
    except ValueError as error:  # an integer of more digits than Python converts
        return problem("", f"not JSON: {error}", "Write a shorter number")
    if not isinstance(value, dict):
        return problem("$", "is no object", "Put one JSON object on each line")
    if re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
        return problem("", "holds half of a surrogate pair", "Write the character itself")
    return line, value


def strings(value: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    """JSON path and text of every string in a value, keys included."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path} (a key)", key
            yield from strings(item, f"{path}.{key}")
