"""Fold the adapter into the 16-bit base, one tensor at a time: W + (alpha / r) · B·A in float32, cast back.

Reads:  models/adapter/, the 16-bit base model
Writes: models/merged/ (safetensors shards laid out as the base's, config, tokenizer, template, training.json and their
        XXH128SUMS)
Alone:  python -m stages.merge
Formula: Hu et al., LoRA (https://arxiv.org/abs/2106.09685), section 4.1
"""

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.shared.ahead import ahead
from stages.shared.atomic import atomic_folder
from stages.shared.base_model import Base, resolve_base
from stages.shared.chatml import IM_END
from stages.shared.checksums import check_sums, write_sums
from stages.shared.console import run_stage, say, size
from stages.shared.params import MergeParams, load_params
from stages.shared.preflight import check_disk, check_memory
from stages.shared.safetensors_stream import write_sixteen_bit
from stages.shared.transfer import to_device, to_host

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER = Path("models/adapter")
MERGED = Path("models/merged")
FROM_ADAPTER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "training.json")
# What 4-bit training quantizes, with an adapter or without: the linear layers, but not the output matrix.
IN_FOUR_BITS = re.compile(r"\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\.weight$")
# Each of these changes the formula above; the adapter's config says when one is in use.
OTHER_FORMULAS = (
    "use_dora",
    "use_rslora",
    "fan_in_fan_out",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
)


def lora_pairs(adapter: Path) -> tuple[dict[str, tuple["Tensor", "Tensor"]], float]:
    """The adapter's matrices by the base tensor they change, and their scale alpha / r.

    Returns:
        `{base tensor name: (A [r, columns], B [rows, r])}` and the scale.

    Raises:
        SystemExit: an adapter that is not plain LoRA, or a matrix without its partner.

    """
    from safetensors.torch import load_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for key in OTHER_FORMULAS:
        if config.get(key):
            raise SystemExit(
                f"{adapter}/adapter_config.json: {key} is set; only plain LoRA can be merged. Train again."
            )
    tensors = load_file(adapter / "adapter_model.safetensors")
    pairs = {}
    for name in sorted(tensors):
        stem, _, last = name.partition(".lora_A")
        if last:
            partner = f"{stem}.lora_B{last}"
            if partner not in tensors:
                raise SystemExit(f"{adapter}/adapter_model.safetensors: {partner} is missing. Run train_lora again.")
            pairs[stem.removeprefix("base_model.model.") + ".weight"] = (tensors[name], tensors[partner])
    if 2 * len(pairs) != len(tensors):
        raise SystemExit(f"{adapter}/adapter_model.safetensors: holds more than LoRA matrices. Train again.")
    return pairs, config["lora_alpha"] / config["r"]


def merged_tensor(weight: "Tensor", pair: tuple["Tensor", "Tensor"], scale: float) -> "Tensor":
    """W + scale · B·A in float32, on W's device, back in W's dtype.

    Args:
        weight: [rows, columns].
        pair: A [r, columns] and B [rows, r].
        scale: alpha / r.

    """
    import torch

    a, b = (matrix.to(weight.device, torch.float32) for matrix in pair)
    return (b @ a).mul_(scale).add_(weight).to(weight.dtype)


def check_base(base: Base, training: dict[str, Any]) -> None:
    """Refuse a base that the adapter was not trained for."""
    trained = training["merge_base"]
    if (base.name, base.revision) != (trained["name"], trained["revision"]):
        raise SystemExit(
            f"{ADAPTER}/training.json: the adapter was trained for {trained['name']} at {trained['revision']}, "
            f"base_model.merge is {base.name} at {base.revision}. Restore that base, or run train_lora again."
        )


def dequantized(weight: "Tensor") -> "Tensor":
    """The weight as 4-bit training saw it: rounded to NF4 with doubly quantized scales and back, in its own dtype.

    Format: bitsandbytes' NF4, blocks of 64; Dettmers et al., QLoRA (https://arxiv.org/abs/2305.14314), section 3.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    return dequantize_4bit(packed, state)


def merge_shard(
    source: Path, target: Path, pairs: dict[str, tuple["Tensor", "Tensor"]], scale: float, params: MergeParams
) -> tuple[set[str], str]:
    """Write one merged shard; return the names of the tensors that the adapter changed in it, and its XXH3-128."""
    import torch
    from safetensors import safe_open

    changed: set[str] = set()
    with safe_open(source, framework="pt") as base:
        names = list(base.keys())
        shapes = {name: base.get_slice(name).get_shape() for name in names}
        for name in pairs.keys() & shapes.keys():
            a, b = pairs[name]
            if shapes[name] != [b.shape[0], a.shape[1]]:
                raise SystemExit(
                    f"{source}: {name} is {shapes[name]}, the adapter's is {[b.shape[0], a.shape[1]]}. "
                    "base_model.merge is not the model that the adapter was trained on."
                )

        rounded = {name for name in names if params.base == "dequantized" and IN_FOUR_BITS.search(name)}

        def read() -> Iterator[tuple[str, "Tensor"]]:
            for name in names:
                tensor = base.get_tensor(name)
                if not tensor.is_floating_point() or tensor.element_size() < 2:
                    raise SystemExit(f"{source}: {name} is {tensor.dtype}. base_model.merge must name 16-bit weights.")
                yield name, to_device(tensor) if name in pairs or name in rounded else tensor.clone()

        def merged() -> Iterator[tuple[str, "Tensor"]]:
            for name, tensor in ahead(read()):
                if name in rounded:
                    tensor = dequantized(tensor)
                if name in pairs:
                    tensor = merged_tensor(tensor, pairs[name], scale)
                    changed.add(name)
                yield name, to_host(tensor.to(getattr(torch, params.dtype)))

        digest = write_sixteen_bit(target, params.dtype, shapes, ahead(merged()))
    return changed, digest


def check_room(shards: list[Path], folder: Path) -> None:
    """Refuse to start what disk or memory cannot hold."""
    from safetensors import safe_open

    check_disk(MERGED, folder, sum(shard.stat().st_size for shard in shards), "move the repository to a larger disk.")
    largest = 0
    for shard in shards:
        with safe_open(shard, framework="pt") as base:
            shapes = [base.get_slice(name).get_shape() for name in base.keys()]  # noqa: SIM118, it is no dict
            largest = max([largest, *map(math.prod, shapes)])
    # Three copies in 16 bits, one of them being read and one written, and two in float32.
    check_memory(MERGED, 14 * largest, "Close other programs.")


def write_configs(base: Path, merged: Path, dtype: str) -> None:
    """The base's configs, with `<|im_end|>` among the tokens that end an answer."""
    tokenizer = json.loads((merged / "tokenizer.json").read_text(encoding="utf-8"))
    end = next(token["id"] for token in tokenizer["added_tokens"] if token["content"] == IM_END)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    config |= {"dtype": dtype, "eos_token_id": end}
    (merged / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    file = base / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    ends = generation.get("eos_token_id", [])
    ends = ends if isinstance(ends, list) else [ends]
    generation["eos_token_id"] = [end, *(token for token in ends if token != end)]
    (merged / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Merge shard by shard into models/merged."""
    params = load_params()
    check_sums(ADAPTER, "train_lora")
    base = resolve_base(params.base_model.merge, params.base_model.merge_revision, "base_model.merge")
    check_base(base, json.loads((ADAPTER / "training.json").read_text(encoding="utf-8")))
    pairs, scale = lora_pairs(ADAPTER)
    shards = sorted(base.path.glob("*.safetensors"))
    with atomic_folder(MERGED) as merged:
        check_room(shards, merged)
        changed: set[str] = set()
        sums: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            found, sums[shard.name] = merge_shard(shard, merged / shard.name, pairs, scale, params.merge)
            changed |= found
            say(f"  shard {number}/{len(shards)}  {shard.name}  {size(merged / shard.name)}")
        if missing := sorted(pairs.keys() - changed):
            raise SystemExit(
                f"{base.path}: has no {missing[0]} (and {len(missing) - 1} more) that the adapter changes."
            )
        for name in FROM_ADAPTER:
            shutil.copyfile(ADAPTER / name, merged / name)
        index = base.path / "model.safetensors.index.json"
        if index.is_file():
            shutil.copyfile(index, merged / index.name)
        write_configs(base.path, merged, params.merge.dtype)
        write_sums(merged, sums)
    facts = f"{len(changed)} of the {params.merge.base} base's tensors changed, scale {scale:g}"
    say(f"  {facts}")


if __name__ == "__main__":
    run_stage("merge", main, MERGED)
