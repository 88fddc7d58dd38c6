"""Refuse a wrong knob before any other stage starts, for DVC removes a stage's outputs before it runs it.

Reads:  params.yaml
Writes: data/knobs.txt (every knob's name; what validate waits for, and the same whatever the values are)
Alone:  python -m stages.check_params
"""

from collections.abc import Iterator
from pathlib import Path

from stages.shared.atomic import atomic_file
from stages.shared.console import run_stage, say
from stages.shared.params import Params, Section, load_params

KNOBS = Path("data/knobs.txt")


def knobs(section: type[Section] = Params, prefix: str = "") -> Iterator[str]:
    """The dotted names of all knobs, as `dvc exp run -S` takes them, in the order of params.yaml."""
    for name, field in section.model_fields.items():
        dotted = f"{prefix}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from knobs(field.annotation, f"{dotted}.")
        else:
            yield dotted


def main() -> None:
    """Check params.yaml, then list the names."""
    load_params()
    names = list(knobs())
    with atomic_file(KNOBS) as path:
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    say(f"  {len(names)} knobs")


if __name__ == "__main__":
    run_stage("check_params", main, KNOBS)
