"""Write the merged model as GGUF, one file per method, ready for llama.cpp and Ollama.

Reads:  models/merged/, reports/format_chatml.json (token lengths), data/epics*.jsonl and Git (for their hashes)
Writes: models/gguf/ (MiPM_Senior-<METHOD>.gguf for every method, Modelfile, MODEL_CARD.md),
        reports/quantize_gguf.json (size and bits per weight of each file)
Alone:  python -m stages.quantize_gguf
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.console import say, size
from stages.shared.gguf_writer import About, SourceModel, read_model, tensor_bytes, write_ggufs
from stages.shared.model_card import LANGUAGE, LICENSE, NAME, TAGS, model_card
from stages.shared.modelfile import lengths, modelfile
from stages.shared.params import Params, load_params
from stages.shared.provenance import provenance

MERGED = Path("models/merged")
GGUF = Path("models/gguf")
LENGTHS = Path("reports/format_chatml.json")
METRICS = Path("reports/quantize_gguf.json")
METADATA_ROOM = 16 * 2**20  # bytes for the vocabulary and its merges in one file


def file_name(method: str) -> str:
    """MiPM_Senior-Q4_K_M.gguf for q4_k_m."""
    return f"{NAME}-{method.upper()}.gguf"


def about(params: Params, training: dict[str, Any]) -> About:
    """What every file says of itself."""
    base = training["merge_base"]
    return About(
        name=NAME,
        description="Writes software Epics as JSON, in Spanish, as a senior product manager would.",
        license=LICENSE,
        languages=[LANGUAGE],
        tags=TAGS,
        base_model=base["name"],
        base_revision=base["revision"],
        provenance=provenance(params, json.dumps(training, ensure_ascii=False)),
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
        started = time.monotonic()
        write_ggufs(model, targets, about(params, training))
        say(f"quantize_gguf: {model.weights / 1e6:.1f} million weights in {time.monotonic() - started:.1f} s")
        system = params.format_chatml.system_prompt
        text = modelfile(file_name(methods[0]), system, num_predict, num_ctx)
        (folder / "Modelfile").write_text(text, encoding="utf-8")
        for method, path in targets.items():
            bits = round(8 * tensor_bytes(model, method) / model.weights, 3)
            metrics[method] = {"size_mib": round(path.stat().st_size / 2**20, 2), "bits_per_weight": bits}
            where = GGUF / path.name
            say(f"quantize_gguf: {where}: {size(path)}, {bits} bits per weight")
        card = model_card(training, system, {file_name(method): numbers for method, numbers in metrics.items()})
        (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
