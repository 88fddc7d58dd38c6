"""Write the merged model as GGUF, one file per method, ready for llama.cpp and Ollama.

Reads:  models/merged/, reports/format_chatml.json (token lengths)
Writes: models/gguf/ (MiPM_Senior-<METHOD>.gguf for every method, Modelfile, MODEL_CARD.md),
        reports/quantize_gguf.json (size and bits per weight of each file)
Alone:  python -m stages.quantize_gguf
"""

import json
import shutil
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.base_model import is_folder
from stages.shared.console import say, size
from stages.shared.gguf_writer import About, SourceModel, read_model, tensor_bytes, write_ggufs
from stages.shared.modelfile import lengths, modelfile
from stages.shared.params import Params, load_params

MERGED = Path("models/merged")
GGUF = Path("models/gguf")
LENGTHS = Path("reports/format_chatml.json")
METRICS = Path("reports/quantize_gguf.json")
NAME = "MiPM_Senior"
OLLAMA_NAME = "pm-senior"
LICENSE = "apache-2.0"
TAGS = ["epics", "product-management", "json", "lora", "llama-cpp", "ollama"]
METADATA_ROOM = 16 * 2**20  # bytes for the vocabulary and its merges in one file


def file_name(method: str) -> str:
    """MiPM_Senior-Q4_K_M.gguf for q4_k_m."""
    return f"{NAME}-{method.upper()}.gguf"


def about(training: dict[str, Any]) -> About:
    """The provenance that every file carries."""
    base = training["merge_base"]
    return About(
        name=NAME,
        description="Writes software Epics as JSON, in Spanish, as a senior product manager would.",
        license=LICENSE,
        languages=["es"],
        tags=TAGS,
        base_model=base["name"],
        base_revision=base["revision"],
        training=json.dumps(training, ensure_ascii=False),
    )


def check_space(model: SourceModel, methods: list[str], folder: Path) -> None:
    """Refuse to start what the disk cannot hold; the old files stay until the new ones are whole."""
    needs = sum(tensor_bytes(model, method) + METADATA_ROOM for method in methods)
    has = shutil.disk_usage(folder).free
    if needs > has:
        raise SystemExit(
            f"{GGUF}: needs {needs / 2**30:.2f} GiB, the disk has {has / 2**30:.2f} GiB free. "
            "Free some, or shorten quantize_gguf.methods."
        )


def model_card(params: Params, training: dict[str, Any], files: dict[str, str]) -> str:
    """The model card, in the Hugging Face Hub's conventions.

    Args:
        params: for the system prompt.
        training: training.json.
        files: file name to its size, the recommended one first.

    """
    base, lora, first = training["merge_base"], training["lora"], next(iter(files))
    # The Hub links base_model to a repo: a folder's name would link to nothing, or to somebody else's.
    base_model = "" if is_folder(base["name"]) else f"base_model: {base['name']}\n"
    tags = "".join(f"\n- {tag}" for tag in TAGS)
    table = "\n".join(f"| `{name}` | {amount} |" for name, amount in files.items())
    return f"""---
{base_model}license: {LICENSE}
language: es
pipeline_tag: text-generation
tags:{tags}
---

# {NAME}

Takes a product context and its requirements as JSON and answers with one software Epic as JSON, in Spanish:
title, description, business value, user stories, verifiable acceptance criteria, scope, dependencies, risks,
metrics, priority.

| file | size |
|---|---|
{table}

## Run it

Ollama, in this folder:

    ollama create {OLLAMA_NAME} -f Modelfile
    ollama run {OLLAMA_NAME} '{{"context": "...", "requerimientos": ["...", "..."]}}'

llama.cpp:

    llama-server -m {first} --jinja --temp 0

and send two messages to `/v1/chat/completions`. The prompt is plain ChatML; this is the system message:

> {params.format_chatml.system_prompt}

The user message is `{{"context": ..., "requerimientos": [...]}}`, indented by 2.

## How it was made

LoRA of rank {lora["r"]} (alpha {lora["alpha"]}) on `{base["name"]}` at revision
`{base["revision"]}`, merged into its 16-bit weights and quantized with llama.cpp's own mixtures.
Data hashes, settings and library versions stand in the files' metadata under `pm_senior.training`.

## Intended use and limits

For a first draft that a product manager then reviews. It can be wrong about laws, figures and dependencies,
and it knows nothing about a company but what the context says. It was trained in Spanish alone and for this
one task. Free generation may end in malformed JSON: a JSON-schema grammar, which llama.cpp and Ollama both
offer, prevents that.
"""


def main() -> None:
    """Quantize every method in one pass over the weights."""
    params = load_params()
    methods: list[str] = list(dict.fromkeys(params.quantize_gguf.methods))
    model = read_model(MERGED)
    training = json.loads((MERGED / "training.json").read_text(encoding="utf-8"))
    tokens = json.loads(LENGTHS.read_text(encoding="utf-8"))["tokens"]
    context = model.config["max_position_embeddings"]
    num_predict, num_ctx = lengths(tokens["prompt"]["max"], tokens["answer"]["max"], context)

    metrics = {}
    with atomic_folder(GGUF) as folder:
        check_space(model, methods, folder)
        targets = {method: folder / file_name(method) for method in methods}
        seconds = write_ggufs(model, targets, about(training))
        files = {path.name: size(path) for path in targets.values()}
        system = params.format_chatml.system_prompt
        text = modelfile(file_name(methods[0]), system, num_predict, num_ctx)
        (folder / "Modelfile").write_text(text, encoding="utf-8")
        (folder / "MODEL_CARD.md").write_text(model_card(params, training, files), encoding="utf-8")
        for method, path in targets.items():
            bits = round(8 * tensor_bytes(model, method) / model.weights, 3)
            metrics[method] = {"size_mib": round(path.stat().st_size / 2**20, 2), "bits_per_weight": bits}
            where = GGUF / path.name
            say(f"quantize_gguf: {where}: {size(path)}, {bits} bits per weight, {seconds[method]:.1f} s")
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
