"""data/epic.schema.json as validators: of a whole row, and of the Epic alone.

Format: JSON Schema 2020-12, https://json-schema.org/draft/2020-12
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path("data/epic.schema.json")


@cache
def schema() -> dict[str, Any]:
    """The whole schema.

    Raises:
        SystemExit: no file, or one that is no JSON Schema.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        value: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(value)
    except FileNotFoundError:
        raise SystemExit(f"{SCHEMA}: not found. Restore it from Git.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SystemExit(f"{SCHEMA}: not JSON: {error}. Mend it or restore it from Git.") from None
    except SchemaError as error:
        raise SystemExit(f"{SCHEMA}: {error.json_path}: {error.message}. Mend it or restore it from Git.") from None
    return value


def output_schema() -> dict[str, Any]:
    """The Epic's schema alone, for llama.cpp's grammar."""
    output: dict[str, Any] = schema()["$defs"]["output"]
    return output


def output_fields() -> list[str]:
    """The Epic's fields, in the order in which they are written."""
    return list(output_schema()["properties"])


@cache
def _validator(part: str) -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema() if part == "row" else schema()["$defs"][part])


def row_errors(row: Any) -> Iterator[tuple[str, str]]:
    """JSON path and fact of everything in a row that the schema forbids."""
    for error in _validator("row").iter_errors(row):
        yield error.json_path, error.message


def output_errors(epic: Any) -> list[str]:
    """Everything in an Epic that the schema forbids; empty if it is valid."""
    return [f"{error.json_path}: {error.message}" for error in _validator("output").iter_errors(epic)]
