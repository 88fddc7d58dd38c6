"""Say what a GGUF of this pipeline was made from, whether it is intact and right, and how it scored.

Run: make verify GGUF=models/gguf/MiPM_Senior-Q4_K_M.gguf
     make verify    (only whether the files of models/ are those that the stages wrote)
The first needs the Git repository at the commit that the file came with, and the file; nothing else has to be pulled.
Exit code 1 if anything is wrong.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.shared.chatml import IM_END, prompt_text, user_message
from stages.shared.checksums import check_sums
from stages.shared.console import say, size
from stages.shared.fingerprint import sha256
from stages.shared.llama_runtime import Llama
from stages.shared.provenance import DATA, read_provenance

GGUF = "models/gguf"
LENGTHS = Path("reports/format_chatml.json")
SCORES = Path("reports/evaluate.json")
WRITTEN_BY = {"models/adapter": "train_lora", "models/merged": "merge", GGUF: "quantize_gguf"}
CONTEXT = 512  # tokens; nothing is generated, so any will do


def md5(file: Path) -> str:
    """The hash that DVC keeps of a file."""
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_intact(file: Path) -> str:
    """The file's MD5, if it is the one that dvc.lock stands for.

    Raises:
        SystemExit: no such file, one that dvc.lock does not know, or other bytes than it records.

    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import NotDvcRepoError

    if not file.is_file():
        raise SystemExit(f"{file}: not found. `dvc pull quantize_gguf` fetches the files that ship.")
    try:
        tracked = DVCFileSystem()
        known = tracked.find(GGUF, detail=True)
    except (NotDvcRepoError, FileNotFoundError):
        raise SystemExit(f"{file}: dvc.lock records no {GGUF} here. Run this in a clone, after `dvc pull`.") from None
    recorded = known.get(f"{GGUF}/{file.name}", {}).get("dvc_info", {}).get("md5")
    if recorded is None:
        raise SystemExit(f"{file}: dvc.lock has no file of that name. Check out the commit that it came with.")
    found = md5(file)
    if found != recorded:
        # By a hard link the cache's copy is this very file, and DVC believes in it unseen.
        cached = Path(tracked.repo.cache.local.oid_to_path(recorded))
        cached = cached.relative_to(Path.cwd()) if cached.is_relative_to(Path.cwd()) else cached
        raise SystemExit(
            f"{file}: its MD5 is {found}, dvc.lock records {recorded}: damaged, or of another commit. "
            f"`rm -f {file} {cached} && dvc pull quantize_gguf` fetches it again."
        )
    return found


def prompts(system: str) -> list[dict[str, Any]]:
    """Every example's input as two messages and as the text that training renders."""
    found = []
    for file in DATA:
        for line in file.read_text(encoding="utf-8").splitlines():
            user = user_message(json.loads(line)["input"])
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            found.append({"messages": messages, "text": prompt_text(system, user)})
    return found


def check_conversation(file: Path, system: str) -> dict[str, str]:
    """What llama.cpp makes of this project's prompts: an error's text, or what it found right, by subject."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    end = fields["tokenizer.ggml.eos_token_id"].contents()
    trained = json.loads(LENGTHS.read_text(encoding="utf-8"))["tokens"]["prompt"]
    asked = prompts(system)
    with Llama(file, 1, CONTEXT) as llama:
        wrong = [each for each in asked if llama.apply_template(each["messages"]) != each["text"]]
        counts = [len(llama.tokenize(each["text"])) for each in asked]
        stop = llama.tokenize(IM_END)
    found = {key: value for key, value in _statistics(counts).items() if key in trained}
    expected = {key: trained[key] for key in found}
    return {
        "template": (
            f"WRONG: llama.cpp renders {len(wrong)} of {len(asked)} prompts otherwise than training did"
            if wrong
            else f"right: llama.cpp renders all {len(asked)} prompts as training did"
        ),
        "stop token": f"right: {IM_END} is id {end}"
        if stop == [end]
        else f"WRONG: id {end} is not {IM_END}, {stop} is",
        "tokenizer": (
            f"right: llama.cpp finds as many tokens in the prompts as training did ({found})"
            if found == expected
            else f"WRONG: llama.cpp finds {found} tokens in the prompts, training {expected}"
        ),
    }


def _statistics(counts: list[int]) -> dict[str, float]:
    return {"min": min(counts), "mean": round(sum(counts) / len(counts), 1), "max": max(counts)}


def data_line(recorded: dict[str, str]) -> str:
    """Each data file's hash, and whether the one here is the same."""
    parts = []
    for name, digest in recorded.items():
        here = Path(name).is_file() and sha256(Path(name)) == digest
        parts.append(f"{name} {digest[:12]} ({'as here' if here else 'OTHER than here'})")
    return ", ".join(parts)


def commit_line(commit: str, dirty: bool) -> str:
    """The commit and whether this clone has it."""
    if commit == "none":
        return "none: it was made outside a Git repository"
    known = subprocess.run(["git", "cat-file", "-e", commit], capture_output=True, check=False).returncode == 0
    return f"{commit[:12]}{' with uncommitted changes' if dirty else ''}{'' if known else ', which this clone lacks'}"


def scores_line(file: Path) -> str:
    """The scores of the report, if dvc.lock says that they are of this very file."""
    stages = YAML(typ="safe").load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
    written = {out["path"]: out["md5"] for out in stages["quantize_gguf"]["outs"]}
    measured = {dep["path"]: dep["md5"] for dep in stages.get("evaluate", {}).get("deps", [])}
    method = file.stem.partition("-")[2].lower()
    report = json.loads(SCORES.read_text(encoding="utf-8")) if SCORES.is_file() else {}
    if measured.get(GGUF) != written[GGUF] or method not in report:
        return "not measured since it was written: run `dvc repro evaluate`"
    modes = (
        f"{mode} schema_valid {values['schema_valid']:g}, requirement_coverage {values['requirement_coverage']:g}"
        for mode, values in report[method].items()
    )
    return f"{report['n']} held-out Epics: {'; '.join(modes)}"


def check_folders() -> None:
    """Hold what the stages left to its checksums; DVC believes in a file that changed inside its cache."""
    present = {folder: stage for folder, stage in WRITTEN_BY.items() if Path(folder).is_dir()}
    for folder, stage in present.items():
        check_sums(Path(folder), stage)
    say(f"intact: {', '.join(present) or 'nothing, for there is nothing in models/'}")


def main(file: Path) -> None:
    """Print ten lines."""
    found = check_intact(file)
    about = read_provenance(file)
    training, knobs = about["training"], about["params"]
    lora, train = training["lora"], training["train"]
    base, versions = training["merge_base"], training["versions"] | about["versions"]
    lines = {
        "intact": f"yes: MD5 {found}, as dvc.lock records",
        "base": f"{base['name']} at {base['revision']}",
        "data": data_line(about["data"]),
        "trained": (
            f"LoRA r {lora['r']}, alpha {lora['alpha']}, {train['epochs']} epochs at {train['learning_rate']:g}, "
            f"seed {train['seed']}, in {train['precision']}"
        ),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": commit_line(about["git.commit"], about["git.dirty"]),
        **check_conversation(file, knobs["format_chatml"]["system_prompt"]),
        "scores": scores_line(file),
    }
    say(f"{file}: {size(file)}")
    for name, value in lines.items():
        say(f"{name:10}  {value}")
    if any(value.startswith("WRONG") for value in lines.values()):
        raise SystemExit(f"{file}: not what training made. Run `dvc repro -f quantize_gguf`.")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        raise SystemExit("usage: make verify GGUF=models/gguf/MiPM_Senior-Q4_K_M.gguf")
    main(Path(sys.argv[1])) if sys.argv[1:] else check_folders()
