"""data/epic.schema.json as validators: of a whole row, and of the Epic alone.

jsonschema-rs decides, at over 100,000 rows a second; jsonschema, at 3,000, explains what is wrong.
Format: JSON Schema 2020-12, https://json-schema.org/draft/2020-12
"""

import difflib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path("data/epic.schema.json")
_TYPES = {"array": "a list", "string": "a string", "object": "an object", "number": "a number", "integer": "an integer"}
_KINDS: dict[type, str] = {dict: "object", list: "array", str: "string", int: "number", float: "number"}


@cache
def schema() -> dict[str, Any]:
    """The whole schema.

    Raises:
        SystemExit: no file, no JSON, no JSON Schema, or one without $defs.input and $defs.output.
    """
    import jsonschema_rs

    try:
        value = json.loads(SCHEMA.read_text(encoding="utf-8"))
        jsonschema_rs.meta.validate(value)
    except FileNotFoundError:
        raise SystemExit(f"{SCHEMA}: not found. Restore it from Git.") from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"{SCHEMA}: byte {error.start + 1} is not UTF-8. Save it as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise SystemExit(f"{SCHEMA}:{error.lineno}: not JSON: {error.msg}. Mend this line.") from None
    except jsonschema_rs.ValidationError as error:
        path = _json_path(error.instance_path)
        raise SystemExit(f"{SCHEMA}: {path}: not JSON Schema: {error.message}. Mend it.") from None
    for part in ("input", "output"):
        if not (isinstance(value, dict) and part in value.get("$defs", {})):
            raise SystemExit(f"{SCHEMA}: $.$defs: has no {part}. Restore it from Git.")
    whole: dict[str, Any] = value
    return whole


def output_schema() -> dict[str, Any]:
    """The Epic's schema alone, for llama.cpp's grammar."""
    output: dict[str, Any] = schema()["$defs"]["output"]
    return output


def output_fields() -> list[str]:
    """The Epic's fields, in the order in which they are written."""
    return list(output_schema()["properties"])


@cache
def _decides(part: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(schema() if part == "row" else output_schema())


@cache
def _explains(part: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema() if part == "row" else output_schema())


def is_row(value: Any) -> bool:
    """Whether the schema allows a row."""
    return bool(_decides("row").is_valid(value))


def row_errors(row: Any) -> Iterator[tuple[str, str, str]]:
    """JSON path, fact and remedy of everything in a row that the schema forbids."""
    return _errors("row", row)


def output_errors(epic: Any) -> list[str]:
    """Everything in an Epic that the schema forbids, as `path: fact. remedy.`; empty if it is valid."""
    return [f"{path}: {fact}. {remedy}." for path, fact, remedy in _errors("output", epic)]


def _errors(part: str, value: Any) -> Iterator[tuple[str, str, str]]:
    if _decides(part).is_valid(value):
        return
    found = [line for error in _explains(part).iter_errors(value) for line in _explain(error)]
    if not found:  # Python's `$` lets a line break pass, that of JSON Schema does not
        errors = _decides(part).iter_errors(value)
        found = [(_json_path(error.instance_path), error.message, f"See {SCHEMA}") for error in errors]
    yield from found


def _explain(error: Any) -> Iterator[tuple[str, str, str]]:
    """Path, fact and remedy for one of jsonschema's errors."""
    value, limit, path = error.instance, error.validator_value, error.json_path
    match error.validator:
        case "required":
            yield path, f'"{error.message.split(chr(39))[1]}" is missing', "Add it"
        case "additionalProperties" if limit is False and "patternProperties" not in error.schema:
            fields = list(error.schema.get("properties", {}))
            for key in value:
                if key not in fields:
                    close = difflib.get_close_matches(key, fields, n=1)
                    remedy = f'Rename it to "{close[0]}"' if close else f"The fields here are {', '.join(fields)}"
                    yield f"{path}.{key}", "there is no such field", remedy
        case "type" if limit in _TYPES:
            kind = _TYPES.get(_KINDS.get(type(value), ""), json.dumps(value))
            yield path, f"is {kind}, should be {_TYPES[limit]}", "Write it as data/README.md shows"
        case "minLength":
            yield path, f"has {len(value)} characters, should have at least {limit}", "Say more"
        case "minItems":
            yield path, f"has {len(value)} items, should have at least {limit}", "Add to it"
        case "enum":
            names = [str(name) for name in limit]
            close = difflib.get_close_matches(str(value).capitalize(), names, n=1)
            remedy = f'Write "{close[0]}"' if close else "Write one of them"
            yield path, f"{json.dumps(value, ensure_ascii=False)} is none of {', '.join(names)}", remedy
        case "pattern":
            yield path, f"{json.dumps(value, ensure_ascii=False)} does not have the form {limit}", "Mend it"
        case _:
            yield path, error.message, f"See {SCHEMA}"


def _json_path(steps: list[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
