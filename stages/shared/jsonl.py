"""JSON Lines, read strictly: one object per line, UTF-8, nothing that another reader might take differently.

Format: https://jsonlines.org and RFC 8259; duplicate keys, NaN and lone surrogates, which Python's reader accepts, are
refused. `quick_object` tells in 15 microseconds that a line is plainly fine; `parse_line` says what is wrong with one.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

PART_BYTES = 8 << 20
MAX_DEPTH = 200  # orjson and jsonschema-rs give up at about 250
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
        text = ": ".join(part for part in (place, self.path, f"{self.fact}. {self.remedy}.") if part)
        # A key may hold a line break, or what no terminal shows.
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


@dataclass(frozen=True)
class Part:
    """A stretch of whole lines: byte `start` up to `end` of a file."""

    file: Path
    start: int
    end: int

    def lines(self) -> list[bytes]:
        """Its lines without their line breaks."""
        with self.file.open("rb") as handle:
            handle.seek(self.start)
            return handle.read(self.end - self.start).removesuffix(b"\n").split(b"\n")


def parts(file: Path, size: int = PART_BYTES) -> Iterator[Part]:
    """Cut a file into stretches of at least `size` bytes, for processes to share; none if it is empty."""
    start, total = 0, file.stat().st_size
    with file.open("rb") as handle:
        while start < total:
            handle.seek(min(start + size, total))
            handle.readline()
            yield Part(file, start, handle.tell())
            start = handle.tell()


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


def quick_object(raw: bytes) -> tuple[dict[str, Any], str] | None:
    """The object of a line and its compact text, or None if only `parse_line` can tell.

    In the compact text everything but quotes, backslashes and control characters stands as itself.
    """
    try:
        value = orjson.loads(raw)
        compact = orjson.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    # orjson keeps the last of two equal keys; the quotes of the other are missing in the text that it writes.
    if not isinstance(value, dict) or _quotes(raw) != _quotes(compact):
        return None
    return value, compact.decode()


def _quotes(text: bytes) -> int:
    """How many quotation marks stand after something else than a backslash: at least the one that opens a string."""
    return text.count(b'"') - text.count(b'\\"')


def parse_line(file: str, line: int, raw: bytes) -> dict[str, Any] | Problem:
    """The object of one line, or what is wrong with it."""

    def problem(path: str, fact: str, remedy: str) -> Problem:
        return Problem(file, line, path, fact, remedy)

    if raw.startswith(_BOM):
        return problem("column 1", "begins with a byte order mark", "Save the file as UTF-8 without BOM")
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return problem(f"byte {error.start + 1}", "is not UTF-8", "Save the file as UTF-8")
    if not text.strip():
        return problem("", "is blank", "Remove the line")
    try:
        value = _DECODER.decode(text)
        too_deep = _depth(value) > MAX_DEPTH
    except json.JSONDecodeError as error:
        return problem(f"column {error.colno}", f"not JSON: {error.msg}", "Mend the line")
    except _RefusedError as error:
        return problem("", str(error), "Keep one value that every reader takes alike")
    except RecursionError:
        too_deep = True
    except ValueError as error:  # an integer of more digits than Python converts
        return problem("", f"not JSON: {error}", "Write a shorter number")
    if too_deep:
        return problem("", f"is nested more than {MAX_DEPTH} levels deep", "Flatten it")
    if not isinstance(value, dict):
        return problem("$", "is no object", "Put one JSON object on each line")
    if re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
        return problem("", "holds half of a surrogate pair", "Write the character itself")
    return value


def _depth(value: Any) -> int:
    """How many lists and objects stand in one another."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def strings(value: Any) -> Iterator[tuple[str, str]]:
    """JSON path and text of every string in a value, in order, each key before what it holds."""
    waiting = [("$", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, str):
            yield path, item
        elif isinstance(item, list):
            waiting.extend((f"{path}[{index}]", item[index]) for index in reversed(range(len(item))))
        elif isinstance(item, dict):
            for key in reversed(item):
                waiting += [(f"{path}.{key}", item[key]), (f"{path} (a key)", key)]
