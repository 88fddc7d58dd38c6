"""What a GGUF was made from, as metadata that travels in it: data hashes, params, versions and the Git commit.

Every key begins with `pm_senior.`; README.md lists them. `make verify GGUF=...` reads them back.
"""

import json
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from stages.shared.fingerprint import sha256
from stages.shared.params import Params

PREFIX = "pm_senior."
DATA = (Path("data/epics.jsonl"), Path("data/epics_eval.jsonl"))
# What a GGUF is made from, for Git. The rest (reports, dvc.lock, prose, tests) is made from it or beside it.
INPUTS = ("data", "stages", "params.yaml", "dvc.yaml", "constraints.txt", "models/base-tiny")
LIBRARIES = ("gguf", "numpy", "safetensors", "torch")


def git_state(inputs: Iterable[str] = INPUTS) -> tuple[str, bool]:
    """The commit that last changed what the model is made from, and whether the working tree differs from it there.

    Not HEAD: a commit that only adds dvc.lock and the reports of a run would make the next run's bytes differ.

    Returns:
        the commit's 40 hex digits, or "none" outside a Git repository, and the dirty flag.

    """
    commit = _git("log", "-1", "--format=%H", "--", *inputs).strip()
    return commit or "none", not commit or bool(_git("status", "--porcelain", "--", *inputs))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def provenance(params: Params, training: str) -> dict[str, str | bool]:
    """Metadata keys and values for a GGUF that is about to be written.

    Args:
        params: for the knobs of the stages after training; training.json holds the others.
        training: training.json as JSON text: base, data, adapter, loop and versions.

    """
    commit, dirty = git_state()
    knobs = params.model_dump(include={"format_chatml", "merge", "quantize_gguf"})
    versions = {"python": python_version()} | {library: version(library) for library in LIBRARIES}
    return {
        f"{PREFIX}training": training,
        f"{PREFIX}data": _json({file.as_posix(): sha256(file) for file in DATA}),
        f"{PREFIX}params": _json(knobs),
        f"{PREFIX}versions": _json(versions),
        f"{PREFIX}git.commit": commit,
        f"{PREFIX}git.dirty": dirty,
    }


def read_provenance(file: Path) -> dict[str, Any]:
    """The keys of a file without their prefix, JSON values parsed.

    Raises:
        SystemExit: a file that this pipeline did not write.

    """
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    found = {key.removeprefix(PREFIX): field.contents() for key, field in fields.items() if key.startswith(PREFIX)}
    if "training" not in found:
        raise SystemExit(f"{file}: holds no {PREFIX}training: another program wrote it. Name a file of models/gguf.")
    parsed = ("training", "data", "params", "versions")
    return {key: json.loads(value) if key in parsed else value for key, value in found.items()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
