"""Which tensor gets which type: a method such as q4_k_m is a mixture, and this is llama.cpp's.

Source: llama.cpp, src/llama-quant.cpp, functions `llama_tensor_get_type_impl`, `tensor_type_fallback`,
`tensor_allows_quantization` and `llama_ftype_get_default_type`, for dense models; the file type numbers are
`enum llama_ftype` in include/llama.h. For a Qwen2 with rows of a multiple of 256 that comes to this (the output
matrix is the embeddings where the two are tied; norms and biases are F32 in every file):

| method | most matrices | output | attn_v | ffn_down | attn_output |
|---|---|---|---|---|---|
| f16, bf16, q8_0, q6_k | F16, BF16, Q8_0, Q6_K | as most | as most | as most | as most |
| q5_k_m | Q5_K | Q6_K | Q6_K in "more bits" | Q6_K in "more bits" | Q5_K |
| q5_k_s | Q5_K | Q6_K | Q5_K | Q5_K | Q5_K |
| q4_k_m | Q4_K | Q6_K | Q6_K in "more bits" | Q6_K in "more bits" | Q4_K |
| q4_k_s | Q4_K | Q6_K | Q5_K in layers 0 to 3 | Q5_K in the first eighth | Q4_K |
| q3_k_m | Q3_K | Q6_K | Q5_K in layers 0 and 1, then Q4_K | Q5_K in the first 16th, then Q4_K | Q4_K |
| q5_0, q4_0 | Q5_0, Q4_0 | Q6_K | as most | as most; * | as most |

"more bits": the first and the last eighth of the layers, and every third layer between them.
*: with an importance matrix Q5_1 and Q4_1 in the first eighth, the one place where the matrix changes a type.
"""

from typing import NamedTuple


class Method(NamedTuple):
    """What a method's name stands for: the type of most tensors, and `general.file_type` of the file."""

    default: str
    file_type: int


METHODS = {
    "f16": Method("F16", 1),
    "bf16": Method("BF16", 32),
    "q8_0": Method("Q8_0", 7),
    "q6_k": Method("Q6_K", 18),
    "q5_k_m": Method("Q5_K", 17),
    "q5_k_s": Method("Q5_K", 16),
    "q4_k_m": Method("Q4_K", 15),
    "q4_k_s": Method("Q4_K", 14),
    "q3_k_m": Method("Q3_K", 12),
    "q5_0": Method("Q5_0", 8),
    "q4_0": Method("Q4_0", 2),
}
# The type, of blocks of 32, for rows that blocks of 256 do not divide.
_FALLBACKS = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def tensor_type(
    method: str, name: str, layer: int, layers: int, columns: int, tied: bool, imatrix: bool = False
) -> str:
    """The GGUF type of one tensor.

    Args:
        method: a key of `METHODS`.
        name: the tensor's GGUF name, such as `blk.3.attn_v.weight`.
        layer: its layer, counted from 0; of no account outside a layer.
        layers: how many layers the model has.
        columns: weights per row.
        tied: whether the token embeddings serve as the output matrix too.
        imatrix: whether there is an importance matrix.

    Raises:
        SystemExit: rows that neither the type nor a fallback of it can divide into blocks.

    """
    if not name.endswith(".weight") or name.endswith("_norm.weight"):
        return "F32"
    default = METHODS[method].default
    if default in ("F16", "BF16"):
        return default
    role = name.removesuffix(".weight").rpartition(".")[2]
    if tied and role == "token_embd":
        role = "output"
    kind = _preferred(method, role, layer, layers, columns, imatrix)
    if columns % _block(kind) == 0:
        return kind
    if kind not in _FALLBACKS:
        raise SystemExit(
            f"{name}: its rows of {columns} weights do not divide into blocks of 32, as {method} needs. "
            "Use f16 or bf16 in quantize_gguf.methods."
        )
    return _FALLBACKS[kind] if columns % 32 == 0 else "F16"


def _preferred(method: str, role: str, layer: int, layers: int, columns: int, imatrix: bool) -> str:
    """The type before its block size is held against the shape."""
    default = METHODS[method].default
    eighth = layers // 8
    more_bits = layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
    if role == "output":
        return "Q8_0" if default == "Q8_0" or columns % _block(default) else "Q6_K"
    if role == "attn_v":
        kind = default
        if method == "q3_k_m":
            kind = "Q5_K" if layer < 2 else "Q4_K"
        elif method in ("q4_k_m", "q5_k_m") and more_bits:
            kind = "Q6_K"
        elif method == "q4_k_s" and layer < 4:
            kind = "Q5_K"
        # 80 layers is how llama.cpp knows a 70B, whose eight query heads share one value head.
        return "Q5_K" if layers == 80 and kind in ("Q3_K", "Q4_K") else kind
    if role == "ffn_down":
        if method == "q3_k_m":
            return "Q5_K" if layer < layers // 16 else "Q4_K"
        if method in ("q4_k_m", "q5_k_m") and more_bits:
            return "Q6_K"
        if method == "q4_k_s" and layer < eighth:
            return "Q5_K"
        if method in ("q4_0", "q5_0") and imatrix and layer < eighth:
            return {"q4_0": "Q4_1", "q5_0": "Q5_1"}[method]
    if role == "attn_output" and method == "q3_k_m":
        return "Q4_K"
    return default


def _block(kind: str) -> int:
    return 256 if kind.endswith("_K") else 32
