"""Write the merged model as GGUF, one file per method, ready for llama.cpp and Ollama.

Reads:  models/merged/, reports/format_chatml.json (token lengths), data/epics*.jsonl and Git (for their hashes),
        data/chatml/train.jsonl for quantize_gguf.imatrix, data/chatml/eval.jsonl for quantize_gguf.damage_texts
Writes: models/gguf/ (MiPM_Senior-<METHOD>.gguf for every method, Modelfile, MODEL_CARD.md, and the importance matrix
        if there is one, and their XXH128SUMS), reports/quantize_gguf.json (size, bits per weight and damage of each
        file), reports/quantize_gguf/damage.tsv (the same, to plot)
Alone:  python -m stages.quantize_gguf
"""

import json
import time
from pathlib import Path
from typing import Any

from stages.shared.atomic import atomic_file, atomic_folder
from stages.shared.chatml_rows import read_texts
from stages.shared.checksums import check_sums, write_sums
from stages.shared.console import run_stage, say, size
from stages.shared.damage import Reference
from stages.shared.gguf_writer import About, SourceModel, read_model, tensor_bytes, write_ggufs
from stages.shared.imatrix import Imatrix, collect, write_imatrix
from stages.shared.layerwise import gguf_weights
from stages.shared.model_card import LANGUAGE, LICENSE, NAME, TAGS, model_card
from stages.shared.modelfile import lengths, modelfile
from stages.shared.params import Params, QuantizeGgufParams, load_params
from stages.shared.preflight import check_disk, check_memory
from stages.shared.provenance import provenance

MERGED = Path("models/merged")
GGUF = Path("models/gguf")
LENGTHS = Path("reports/format_chatml.json")
IMATRIX = f"{NAME}-imatrix.gguf"
METRICS = Path("reports/quantize_gguf.json")
REPORT = Path("reports/quantize_gguf")
CHATML = Path("data/chatml")
METADATA_ROOM = 16 * 2**20  # bytes for the vocabulary and its merges in one file


def file_name(method: str) -> str:
    """MiPM_Senior-Q4_K_M.gguf for q4_k_m."""
    return f"{NAME}-{method.upper()}.gguf"


def about(params: Params, training: dict[str, Any], matrix: Imatrix | None) -> About:
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
        provenance=provenance(params, json.dumps(training, ensure_ascii=False))
        | (matrix.metadata(IMATRIX) if matrix else {}),
    )


def check_room(model: SourceModel, params: QuantizeGgufParams, folder: Path) -> None:
    """Refuse to start what disk or memory cannot hold."""
    files = sum(tensor_bytes(model, method, params.imatrix) + METADATA_ROOM for method in params.methods)
    check_disk(GGUF, folder, files, "shorten quantize_gguf.methods.")
    float32 = params.imatrix or params.damage_texts
    check_memory(
        GGUF, model.largest * (16 if float32 else 10), "Close other programs, or set quantize_gguf.damage_texts to 0."
    )


def damage_table(metrics: dict[str, dict[str, float]], imatrix: bool) -> str:
    """Tab-separated, one row for each file; without damage the sizes alone."""
    names = [name for name in ("size_mib", "kl_divergence", "perplexity_ratio") if name in next(iter(metrics.values()))]
    rows = [["method", "imatrix", *names]]
    for method, numbers in metrics.items():
        rows.append([method, "with" if imatrix else "without", *(str(numbers[name]) for name in names)])
    return "".join("\t".join(row) + "\n" for row in rows)


def main() -> None:
    """Quantize every method in one pass over the weights."""
    params = load_params()
    methods: list[str] = list(dict.fromkeys(params.quantize_gguf.methods))
    check_sums(MERGED, "merge")
    model = read_model(MERGED)
    training = json.loads((MERGED / "training.json").read_text(encoding="utf-8"))
    tokens = json.loads(LENGTHS.read_text(encoding="utf-8"))["tokens"]
    context = model.config["max_position_embeddings"]
    num_predict, num_ctx = lengths(tokens["prompt"]["max"], tokens["answer"]["max"], context)

    metrics: dict[str, dict[str, float]] = {}
    knobs = params.quantize_gguf
    with atomic_folder(GGUF) as folder:
        check_room(model, knobs, folder)
        started = time.monotonic()
        matrix = collect(model, CHATML / "train.jsonl", knobs.imatrix_texts) if knobs.imatrix else None
        if matrix:
            write_imatrix(folder / IMATRIX, matrix)
            read = f"{matrix.texts} texts, {matrix.tokens} tokens"
            say(f"  importance of {len(matrix.sums)} matrices' columns, from {read}")
        targets = {method: folder / file_name(method) for method in methods}
        write_ggufs(model, targets, about(params, training, matrix), matrix.mean_squares if matrix else None)
        say(f"  {model.weights / 1e6:.1f} million weights in {time.monotonic() - started:.1f} s")
        texts = read_texts(CHATML / "eval.jsonl")[: knobs.damage_texts]
        reference = Reference(model, texts) if texts else None
        system = params.format_chatml.system_prompt
        text = modelfile(file_name(methods[0]), system, num_predict, num_ctx)
        (folder / "Modelfile").write_text(text, encoding="utf-8")
        for method, path in targets.items():
            bits = round(8 * tensor_bytes(model, method, knobs.imatrix) / model.weights, 3)
            metrics[method] = {"size_mib": round(path.stat().st_size / 2**20, 2), "bits_per_weight": bits}
            lost = ""
            if reference:
                metrics[method] |= (damage := reference.damage(gguf_weights(path)))
                lost = f", KL {damage['kl_divergence']:.4f} nats, perplexity x {damage['perplexity_ratio']:.4f}"
            say(f"  {path.name}: {size(path)}, {bits} bits per weight{lost}")
        card = model_card(training, system, {file_name(method): numbers for method, numbers in metrics.items()})
        (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        write_sums(folder)
    with atomic_folder(REPORT) as report:
        (report / "damage.tsv").write_text(damage_table(metrics, knobs.imatrix), encoding="utf-8")
    with atomic_file(METRICS) as path:
        path.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_stage("quantize_gguf", main, GGUF, METRICS)
