"""From adapter to GGUF, side by side in one run: ggml's quantizer, PEFT's merge and a plain copy of the same bytes.

    python -m benchmarks.export                     the quantizers and the merge of one 5120 x 13824 layer
    python -m benchmarks.export FOLDER SCRATCH      and merge + quantize of a whole 16-bit model, written to SCRATCH

A quantizer's speed is that of weights already in memory (on the GPU: in its memory). ggml's is
`ggml_quantize_chunk` of xllamacpp's library, called from as many threads as there are cores. Memory is what the
process holds itself: pages of files that are mapped into it are not counted.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import merge
from stages.shared.base_model import folder_digest
from stages.shared.checksums import write_sums
from stages.shared.gguf_writer import About, read_model, tensor_bytes, write_ggufs
from stages.shared.kquants import FORMATS, quantize

SHAPE = (5120, 13824)
KINDS = {"Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "Q3_K": 11}  # enum ggml_type
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BASE_TINY = Path("models/base-tiny")
CORES = len(os.sched_getaffinity(0))


def seconds(work: Callable[[], Any], times: int = 3) -> float:
    """The best of several runs."""
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def ggml() -> Any:
    """The library of xllamacpp, for its C functions."""
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None and spec.submodule_search_locations
    library = ctypes.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so"))))
    sizes = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *sizes, ctypes.c_void_p]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def by_ggml(library: Any, weights: Tensor, kind: str, importance: Tensor | None, threads: int) -> Tensor:
    """What ggml makes of float32 weights: uint8 [rows, bytes of a row]."""
    rows, columns = weights.shape
    out = torch.empty(rows, columns // FORMATS[kind].block * FORMATS[kind].bytes, dtype=torch.uint8)
    cost = None if importance is None else importance.data_ptr()
    step = -(-rows // (4 * threads))

    def chunk(first: int) -> None:
        count = min(step, rows - first)
        arguments = (weights.data_ptr(), out.data_ptr(), first * columns, count, columns, cost)
        library.ggml_quantize_chunk(KINDS[kind], *arguments)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(chunk, range(0, rows, step)))
    return out


def quantizers(rows: int) -> None:
    """Speed of each quantizer, and the share of blocks that are ggml's to the byte."""
    library = ggml()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(rows, SHAPE[1], generator=generator)
    tails = torch.randn(rows, SHAPE[1], generator=generator).abs_().add_(1e-3)
    cases = {"random": noise * 0.02, "heavy-tailed": noise / tails * 0.01}
    matrix = torch.rand(SHAPE[1], generator=generator).square_().add_(1e-4)
    places = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"## Quantizers: million weights/s, {rows} x {SHAPE[1]} weights, {CORES} cores")
    print("| type | matrix | ggml | " + " | ".join(f"ours, {place} | ratio | equal blocks" for place in places) + " |")
    print("|" + "---|" * (3 + 3 * len(places)))
    for kind in KINDS:
        for importance in (None, matrix):
            line, count = "", noise.numel() / 1e6
            theirs = {name: by_ggml(library, weights, kind, importance, CORES) for name, weights in cases.items()}
            baseline = seconds(lambda k=kind, i=importance: by_ggml(library, cases["random"], k, i, CORES), 2)
            for place in places:
                equal = total = 0
                for name, weights in cases.items():
                    ours = quantize(weights.to(place), kind, importance).cpu()
                    blocks = (ours == theirs[name]).view(-1, FORMATS[kind].bytes).all(1)
                    equal, total = equal + int(blocks.sum()), total + blocks.numel()
                weights = cases["random"].to(place)
                took = seconds(lambda w=weights, k=kind, i=importance: quantize(w, k, i))
                line += f" {count / took:.0f} | {baseline / took:.1f} | {equal / total:.6f} |"
            print(
                f"| {kind} | {'yes' if importance is not None else 'no'} | {count / baseline:.0f} |{line}", flush=True
            )


def one_layer() -> None:
    """The merge of one layer, ours and PEFT's, with the same bits."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    place = "cuda" if torch.cuda.is_available() else "cpu"
    base = torch.nn.Sequential()
    base.add_module("q_proj", torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False))
    weight = base.q_proj.weight.data.bfloat16()
    base.q_proj.weight.data = weight.float()
    config = LoraConfig(r=16, lora_alpha=16, target_modules=["q_proj"], init_lora_weights=False)
    model: Any = get_peft_model(base.to(place), config)  # type: ignore[arg-type]
    layer = model.base_model.model.q_proj
    pair = (layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data)
    weight = weight.to(place)
    ours = seconds(lambda: merge.merged_tensor(weight, pair, 1.0))
    merged = merge.merged_tensor(weight, pair, 1.0)
    started = time.perf_counter()
    theirs = model.merge_and_unload().q_proj.weight.data.bfloat16()
    if place == "cuda":
        torch.cuda.synchronize()
    took = time.perf_counter() - started
    print(f"## Merge of one {SHAPE[0]} x {SHAPE[1]} layer, on {place}")
    print(f"ours {ours * 1e3:.1f} ms, PEFT {took * 1e3:.1f} ms, bit-equal: {torch.equal(merged, theirs)}", flush=True)


@contextmanager
def watched(label: str, moved: Callable[[], int]) -> Iterator[dict[str, float]]:
    """Time a step and sample what it holds: prints a line, and keeps the figures."""
    figures = {"host_gib": 0.0}
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            held = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
            figures["host_gib"] = max(figures["host_gib"], held / 2**20)

    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # a stage is a process of its own
        torch.cuda.reset_peak_memory_stats()
    thread = threading.Thread(target=sample)
    thread.start()
    started = time.perf_counter()
    try:
        yield figures
    finally:
        figures["seconds"] = time.perf_counter() - started
        done.set()
        thread.join()
    gpu = torch.cuda.max_memory_reserved() / 2**30 if torch.cuda.is_available() else 0.0
    print(
        f"| {label} | {figures['seconds']:.1f} s | {moved() / 2**30:.1f} GiB | {figures['host_gib']:.2f} GiB | "
        f"{gpu:.2f} GiB |",
        flush=True,
    )


def random_adapter(base: Path, adapter: Path, rank: int = 16) -> None:
    """An adapter for every linear of the base, with the tiny base's tokenizer."""
    from safetensors.torch import save_file

    adapter.mkdir(parents=True)
    model, tensors = read_model(base), {}
    for stored in model.tensors.values():
        module, _, last = stored.name.rpartition(".")
        if last == "weight" and module.rpartition(".")[2] in LINEARS:
            rows, columns = stored.shape
            tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, columns) * 0.01
            tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(rows, rank) * 0.01
    save_file(tensors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": rank, "lora_alpha": rank}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BASE_TINY / name, adapter / name)
    record = {"merge_base": {"name": str(base), "revision": folder_digest(base)}}
    (adapter / "training.json").write_text(json.dumps(record))
    write_sums(adapter)


def size(folder: Path) -> int:
    """Bytes of a folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def whole_model(base: Path, scratch: Path) -> None:
    """Merge and quantize to q4_k_m, and copy the same bytes."""
    base, scratch = base.resolve(), scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    random_adapter(base, scratch / "models/adapter")
    params = Path("presets/qwen14b-24gb.yaml").read_text(encoding="utf-8").splitlines()
    params = [f"  merge: {base}" if line.startswith("  merge: ") else line for line in params]
    (scratch / "params.yaml").write_text("\n".join(params) + "\n", encoding="utf-8")
    os.chdir(scratch)
    gguf, merged = Path("model.gguf"), Path("models/merged")
    print(f"## {base}: merge and quantize to q4_k_m, read from and written to {scratch}")
    print("| step | time | read and written | peak host memory | peak GPU memory |\n|---|---|---|---|---|")
    with watched("merge", lambda: size(base) + size(merged)) as merging:
        merge.main()
    about = About("bench", "", "other", [], [], str(base), "", {})
    with watched("quantize", lambda: size(merged) + gguf.stat().st_size) as quantizing:
        write_ggufs(read_model(merged), {"q4_k_m": gguf}, about)
    written = tensor_bytes(read_model(merged), "q4_k_m")
    copy = Path("copy")
    with watched("copy of the bytes of merge", lambda: 2 * size(merged)) as first:
        for file in list(merged.iterdir()):
            shutil.copyfile(file, copy)
    with watched("copy of the bytes of quantize", lambda: size(merged) + written) as second:
        for file in merged.iterdir():
            with file.open("rb") as source, copy.open("wb") as target:
                while some := source.read(2**24):
                    target.write(some[: len(some) * written // size(merged)])
    ours, floor = (one["seconds"] + other["seconds"] for one, other in ((merging, quantizing), (first, second)))
    print(f"merge and quantize {ours:.1f} s, copies {floor:.1f} s: {ours / floor:.2f} times", flush=True)
    copy.unlink()
    shutil.rmtree(merged)
    gguf.unlink()
    shutil.rmtree("models/adapter")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="a folder with a 16-bit Qwen2 model")
    parser.add_argument("scratch", nargs="?", type=Path, help="a folder to write to, as large as the model and a third")
    parser.add_argument("--rows", type=int, default=256 * CORES, help="of the matrix that the quantizers get")
    parser.add_argument("--only-model", action="store_true")
    arguments = parser.parse_args()
    if not arguments.only_model:
        quantizers(min(arguments.rows, SHAPE[0]))
        one_layer()
    if arguments.model:
        whole_model(arguments.model, arguments.scratch)


if __name__ == "__main__":
    main()
