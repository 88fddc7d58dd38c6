"""GGUF files from a Hugging Face model folder: all quantizations in one pass, one tensor in memory at a time.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensor and metadata names are those that
llama.cpp's convert_hf_to_gguf.py gives a Qwen2 or Qwen3 model.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.shared.ahead import ahead
from stages.shared.chatml import END_OF_TEXT, IM_END
from stages.shared.console import Pace, say
from stages.shared.quant_mixture import METHODS, tensor_type
from stages.shared.transfer import to_device, to_host

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from torch import Tensor

ARCHITECTURES = ("qwen2", "qwen3")
# The split that llama.cpp calls `qwen2`: any other would tokenize the same text differently there.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LARGEST_HALF = 65504.0  # scales are stored as float16
_AGAIN = "Restore the base, or run `dvc repro -f merge`."
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # enum llama_token_type


_Side = Annotated[int, Field(ge=1, lt=2**31)]
_Small = Annotated[float, Field(gt=0, lt=1e30)]


class _Read(BaseModel):
    """What has to stand in a JSON file for the code below to read it; the rest of the file is free."""

    model_config = ConfigDict(strict=True)


class _Rope(_Read):
    rope_theta: _Small
    rope_type: str = "default"


class _Config(_Read):
    hidden_size: _Side
    intermediate_size: _Side
    vocab_size: _Side
    num_hidden_layers: Annotated[int, Field(ge=1, lt=10_000)]
    num_attention_heads: _Side
    num_key_value_heads: _Side
    max_position_embeddings: _Side
    rms_norm_eps: _Small
    head_dim: _Side | None = None
    tie_word_embeddings: bool = False
    rope_parameters: _Rope | None = None
    rope_theta: _Small | None = None
    rope_scaling: dict[str, Any] | None = None


class _Index(_Read):
    weight_map: dict[str, Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]]


class _Bpe(_Read):
    type: str
    vocab: dict[str, Annotated[int, Field(ge=0)]]
    merges: list[str | Annotated[list[str], Field(min_length=2, max_length=2)]]


class _AddedToken(_Read):
    content: str
    id: Annotated[int, Field(ge=0)]
    special: bool


class _Tokenizer(_Read):
    model: _Bpe
    added_tokens: list[_AddedToken]


@dataclass(frozen=True)
class About:
    """What the file says about where it comes from.

    Attributes:
        name: the model's name; also the stem of the file's.
        base_model: Hub repo id or folder of the base.
        base_revision: its exact revision.
        provenance: further keys with their values; integers are stored as uint32.

    """

    name: str
    description: str
    license: str
    languages: list[str]
    tags: list[str]
    base_model: str
    base_revision: str
    provenance: Mapping[str, str | bool | int]


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies: safetensors file, its name there, its shape."""

    file: Path
    name: str
    shape: list[int]


@dataclass(frozen=True)
class SourceModel:
    """A model folder whose config and tensors were checked against each other.

    Attributes:
        folder: where it lies.
        config: config.json.
        tensors: GGUF name to tensor, in the order of the file.

    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @property
    def layers(self) -> int:
        """Number of transformer layers."""
        return int(self.config["num_hidden_layers"])

    @property
    def tied(self) -> bool:
        """Whether the embeddings are the output matrix."""
        return "output.weight" not in self.tensors

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(_count(tensor.shape) for tensor in self.tensors.values())

    @property
    def largest(self) -> int:
        """Weights of the largest tensor."""
        return max(_count(tensor.shape) for tensor in self.tensors.values())

    def types(self, method: str, imatrix: bool = False) -> dict[str, str]:
        """GGUF type by tensor name, with or without an importance matrix."""
        types = {}
        for name, tensor in self.tensors.items():
            layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
            types[name] = tensor_type(method, name, layer, self.layers, tensor.shape[-1], self.tied, imatrix)
        return types


def read_model(folder: Path) -> SourceModel:
    """Read a folder's config and safetensors headers.

    Raises:
        SystemExit: an architecture that is not supported; a tensor missing, extra or of another shape.

    """
    file = folder / "config.json"
    config = _read_json(file)
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise SystemExit(
            f"{folder}/config.json: model_type is {kind}, only {' and '.join(ARCHITECTURES)} can be written. "
            "Use a base of that family."
        )
    _check(file, config, _Config)
    _check(file, rope(config), _Rope)
    for key, value, supported in (
        ("rope_type", rope(config).get("rope_type", "default"), "default"),
        ("use_sliding_window", config.get("use_sliding_window", False), False),
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
    ):
        if value != supported:
            raise SystemExit(
                f"{folder}/config.json: {key} is {value}, only {supported} can be written. Use another base."
            )
    expected = expected_tensors(config)
    stored = _stored_tensors(folder)
    if config.get("tie_word_embeddings", False):
        stored.pop("lm_head.weight", None)  # some files carry a second copy of the embeddings
    for fact, names in (
        ("is missing", sorted(expected.keys() - stored.keys())),
        (f"is no tensor of a {kind} model", sorted(stored.keys() - expected.keys())),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise SystemExit(f"{folder}: {names[0]}{more} {fact}. Run `dvc repro merge` again.")
    for name, (_, shape) in expected.items():
        if stored[name].shape != shape:
            raise SystemExit(
                f"{stored[name].file}: {name} is {stored[name].shape}, config.json makes it {shape}. "
                "Run `dvc repro merge` again."
            )
    return SourceModel(folder, config, {gguf_name: stored[name] for name, (gguf_name, _) in expected.items()})


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before."""
    if config.get("rope_parameters"):
        return dict(config["rope_parameters"])
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {"rope_theta": config.get("rope_theta"), "rope_type": kind}


def expected_tensors(config: dict[str, Any]) -> dict[str, tuple[str, list[int]]]:
    """The tensors that a config calls for: Hugging Face name to GGUF name and shape, in the file's order."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    layer: dict[str, tuple[str, list[int]]] = {
        "input_layernorm.weight": ("attn_norm.weight", [hidden]),
        "self_attn.q_proj.weight": ("attn_q.weight", [queries, hidden]),
        "self_attn.k_proj.weight": ("attn_k.weight", [keys, hidden]),
        "self_attn.v_proj.weight": ("attn_v.weight", [keys, hidden]),
        "self_attn.o_proj.weight": ("attn_output.weight", [hidden, queries]),
        "post_attention_layernorm.weight": ("ffn_norm.weight", [hidden]),
        "mlp.gate_proj.weight": ("ffn_gate.weight", [inner, hidden]),
        "mlp.up_proj.weight": ("ffn_up.weight", [inner, hidden]),
        "mlp.down_proj.weight": ("ffn_down.weight", [hidden, inner]),
    }
    if config["model_type"] == "qwen2":
        layer["self_attn.q_proj.bias"] = ("attn_q.bias", [queries])
        layer["self_attn.k_proj.bias"] = ("attn_k.bias", [keys])
        layer["self_attn.v_proj.bias"] = ("attn_v.bias", [keys])
    else:
        layer["self_attn.q_norm.weight"] = ("attn_q_norm.weight", [head])
        layer["self_attn.k_norm.weight"] = ("attn_k_norm.weight", [head])
    tensors = {"model.embed_tokens.weight": ("token_embd.weight", [vocabulary, hidden])}
    for index in range(config["num_hidden_layers"]):
        for name, (gguf_name, shape) in layer.items():
            tensors[f"model.layers.{index}.{name}"] = (f"blk.{index}.{gguf_name}", shape)
    tensors["model.norm.weight"] = ("output_norm.weight", [hidden])
    if not config.get("tie_word_embeddings", False):
        tensors["lm_head.weight"] = ("output.weight", [vocabulary, hidden])
    return tensors


def tensor_bytes(model: SourceModel, method: str, imatrix: bool = False) -> int:
    """Bytes of all tensors in a file of this method, without the few kilobytes of metadata and padding."""
    return sum(_byte_shape(model.tensors[name].shape, kind)[1] for name, kind in model.types(method, imatrix).items())


@dataclass
class _Target:
    """One file being written."""

    types: dict[str, str]
    writer: "GGUFWriter"


def write_ggufs(
    model: SourceModel, targets: dict[str, Path], about: About, importance: "Mapping[str, Tensor] | None" = None
) -> None:
    """Write one file per method, reading every tensor once; reading, encoding and writing overlap.

    Args:
        model: the source.
        targets: method to the file to write.
        about: provenance for the metadata.
        importance: what an error in each column costs, [columns] by GGUF name; a matrix that it lacks is quantized
            without.

    Raises:
        SystemExit: a weight that is not finite or too large for a float16 scale; a tokenizer that llama.cpp
            would read differently.

    """
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from safetensors import safe_open

    from stages.shared.kquants import quantize

    metadata = _tokenizer_metadata(model)
    files: dict[str, _Target] = {}
    for method, path in targets.items():
        target = _Target(model.types(method, bool(importance)), GGUFWriter(path, model.config["model_type"]))
        _add_metadata(target.writer, model, method, about)
        for add, value in metadata.items():
            getattr(target.writer, add)(value)
        for name, kind in target.types.items():
            shape, size = _byte_shape(model.tensors[name].shape, kind)
            target.writer.add_tensor_info(name, shape, np.dtype(np.uint8), size, GGMLQuantizationType[kind])
        target.writer.write_header_to_file()
        target.writer.write_kv_data_to_file()
        target.writer.write_ti_data_to_file()
        files[method] = target

    def read() -> Iterator[tuple[str, "Tensor"]]:
        for name, stored in model.tensors.items():
            with safe_open(stored.file, framework="pt") as source:
                yield name, to_device(source.get_tensor(stored.name))

    def encode() -> Iterator[tuple[str, dict[str, "Tensor"]]]:
        for name, weights in ahead(read()):
            _check_range(weights, model.tensors[name])
            rows = weights.reshape(-1, weights.shape[-1])
            kinds = dict.fromkeys(target.types[name] for target in files.values())
            cost = importance.get(name) if importance else None
            yield name, {kind: to_host(quantize(rows, kind, cost)) for kind in kinds}

    pace, written = Pace(), 0
    for name, encoded in ahead(encode()):
        for target in files.values():
            target.writer.write_tensor_data(encoded[target.types[name]].numpy())
        written += _count(model.tensors[name].shape)
        if pace.due():
            say(f"  {written / model.weights:.0%} of the weights quantized")
    for target in files.values():
        target.writer.close()


def _check_range(weights: "Tensor", stored: StoredTensor) -> None:
    if not weights.is_floating_point() or weights.element_size() < 2:
        raise SystemExit(f"{stored.file}: {stored.name} is {weights.dtype}. Use a base with 16-bit weights.")
    low, high = weights.aminmax()
    largest = max(-low.item(), high.item())
    if not largest <= _LARGEST_HALF:
        raise SystemExit(
            f"{stored.file}: {stored.name} holds a weight of {largest}, GGUF's scales end at 65504. "
            "Training diverged: lower train.learning_rate and run it again."
        )


def _count(shape: Iterable[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _byte_shape(shape: list[int], kind: str) -> tuple[list[int], int]:
    """The shape in bytes of an encoded tensor, and its size."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    byte_shape = [*shape[:-1], shape[-1] // block * size]
    return byte_shape, _count(byte_shape)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise SystemExit(f"{file}: not JSON: {error}. {_AGAIN}") from None
    if not isinstance(value, dict):
        raise SystemExit(f"{file}: holds no JSON object. {_AGAIN}")
    return value


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SystemExit(f"{file}: not found. Run `dvc repro merge` again.") from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"{file}: byte {error.start} is not UTF-8. {_AGAIN}") from None


def _check(file: Path, value: dict[str, Any], model: type[_Read]) -> None:
    """Refuse a JSON file by the first thing in it that the code cannot read."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]).encode("unicode_escape").decode()
        raise SystemExit(f"{file}: {place}: {first['msg']}. {_AGAIN}") from None


def _stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder by name, from one safetensors file or from the shards that the index names."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        content = _read_json(index)
        _check(index, content, _Index)
        shards = set(content["weight_map"].values())
    tensors = {}
    for file in (folder / shard for shard in sorted(shards)):
        if not file.is_file():
            raise SystemExit(f"{file}: not found. Run `dvc repro merge` again.")
        try:
            with safe_open(file, framework="pt") as source:
                for name in source.keys():  # noqa: SIM118, it is no dict
                    tensors[name] = StoredTensor(file, name, source.get_slice(name).get_shape())
        except SafetensorError as error:
            raise SystemExit(f"{file}: {error}. {_AGAIN}") from None
    return tensors


def _add_metadata(writer: "GGUFWriter", model: SourceModel, method: str, about: About) -> None:
    from gguf import GGML_QUANT_VERSION

    config = model.config
    writer.add_type("model")
    writer.add_name(about.name)
    writer.add_basename(about.name)
    writer.add_description(about.description)
    writer.add_size_label(size_label(model.weights))
    writer.add_license(about.license)
    writer.add_languages(about.languages)
    writer.add_tags(about.tags)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, about.base_model.rpartition("/")[2])
    writer.add_base_model_version(0, about.base_revision)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", about.base_model) and not Path(about.base_model).is_dir():
        writer.add_base_model_organization(0, about.base_model.partition("/")[0])
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{about.base_model}")
    for key, value in about.provenance.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.add_file_type(METHODS[method].file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope(config)["rope_theta"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def size_label(weights: int) -> str:
    """A parameter count as model names write it: 14.8B, 494M, 87K."""
    if weights >= 1e9:
        return f"{weights / 1e9:.1f}B"
    return f"{weights / 1e6:.0f}M" if weights >= 1e6 else f"{weights / 1e3:.0f}K"


def _tokenizer_metadata(model: SourceModel) -> dict[str, Any]:
    """The tokenizer as `GGUFWriter` methods and their argument."""
    file = model.folder / "tokenizer.json"
    tokenizer = _read_json(file)
    bpe, splits = tokenizer.get("model"), json.dumps(tokenizer.get("pre_tokenizer"))
    if (
        not isinstance(bpe, dict)
        or bpe.get("type") != "BPE"
        or json.dumps(QWEN2_SPLIT) not in splits
        or "ByteLevel" not in splits
    ):
        raise SystemExit(
            f"{file}: not byte-level BPE with Qwen2's split, the only kind that can be written. Use a Qwen2 base."
        )
    _check(file, tokenizer, _Tokenizer)
    size = model.config["vocab_size"]
    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [_UNUSED] * size
    entries = [(token, index, _NORMAL) for token, index in bpe["vocab"].items()]
    entries += [
        (added["content"], added["id"], _CONTROL if added["special"] else _USER_DEFINED)
        for added in tokenizer["added_tokens"]
    ]
    for token, index, kind in entries:
        if index >= size:
            raise SystemExit(
                f"{file}: token {token!r} has id {index}, config.json's vocab_size is {size}. "
                "Use the tokenizer that belongs to the base."
            )
        if types[index] != _UNUSED and tokens[index] != token:
            raise SystemExit(f"{file}: tokens {tokens[index]!r} and {token!r} both have id {index}. {_AGAIN}")
        tokens[index], types[index] = token, kind
    if (twice := Counter(tokens).most_common(1)[0])[1] > 1:
        raise SystemExit(f"{file}: token {twice[0]!r} stands for {twice[1]} ids. {_AGAIN}")
    for token in (END_OF_TEXT, IM_END):
        if token not in tokens:
            raise SystemExit(f"{file}: has no {token} token. Use a base trained on ChatML, such as Qwen2.5.")
    end, pad = tokens.index(IM_END), tokens.index(END_OF_TEXT)
    return {
        "add_tokenizer_model": "gpt2",
        "add_tokenizer_pre": "qwen2",
        "add_token_list": tokens,
        "add_token_types": types,
        "add_token_merges": [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]],
        "add_eos_token_id": end,
        "add_pad_token_id": pad,
        "add_bos_token_id": pad,  # as in Qwen's own files; it is never put in front of a prompt
        "add_add_bos_token": False,
        "add_chat_template": _read_text(model.folder / "chat_template.jinja"),
    }
