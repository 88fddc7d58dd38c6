"""quant_mixture.py against llama.cpp's rules, as a whole and one by one."""

from collections import Counter

import pytest

from stages.shared.quant_mixture import METHODS, tensor_type

LAYER = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def counts(method: str, layers: int, tied: bool, hidden: int = 5120, inner: int = 13824) -> Counter[str]:
    """How many matrices get each type."""
    outer = ["token_embd.weight"] if tied else ["token_embd.weight", "output.weight"]
    types = [tensor_type(method, name, 0, layers, hidden, tied) for name in outer]
    for layer in range(layers):
        for role in LAYER:
            columns = inner if role == "ffn_down" else hidden
            types.append(tensor_type(method, f"blk.{layer}.{role}.weight", layer, layers, columns, tied))
    return Counter(types)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Counted by hand from llama.cpp's rules: 6 + 6 outer layers and 12 between them get more bits.
        ("q4_k_m", {"Q4_K": 289, "Q6_K": 49}),
        ("q5_k_m", {"Q5_K": 289, "Q6_K": 49}),
        ("q4_k_s", {"Q4_K": 327, "Q5_K": 10, "Q6_K": 1}),
        ("q5_k_s", {"Q5_K": 337, "Q6_K": 1}),
        ("q3_k_m", {"Q3_K": 193, "Q4_K": 139, "Q5_K": 5, "Q6_K": 1}),
        ("q6_k", {"Q6_K": 338}),
        ("q8_0", {"Q8_0": 338}),
        ("q5_0", {"Q5_0": 337, "Q6_K": 1}),
        ("q4_0", {"Q4_0": 337, "Q6_K": 1}),
        ("f16", {"F16": 338}),
        ("bf16", {"BF16": 338}),
    ],
)
def test_a_14b_of_48_layers_gets_llama_cpps_mixture(method: str, expected: dict[str, int]) -> None:
    assert counts(method, 48, tied=False) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layers", [4, 48])
def test_an_importance_matrix_changes_the_first_eighth_of_ffn_down_in_q4_0_and_q5_0_alone(
    method: str, layers: int
) -> None:
    changed = {}
    for layer in range(layers):
        for role in LAYER:
            name = f"blk.{layer}.{role}.weight"
            without, given = (tensor_type(method, name, layer, layers, 5120, False, matrix) for matrix in (False, True))
            if without != given:
                changed[layer, role] = given
    one_more = {"q4_0": "Q4_1", "q5_0": "Q5_1"}.get(method)
    assert changed == ({(layer, "ffn_down"): one_more for layer in range(layers // 8)} if one_more else {})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # Four tied layers, as a tiny base has: layers 2 and 3 get more bits, an eighth of four is none.
        ("q4_k_m", {"Q4_K": 24, "Q6_K": 5}),
        ("q5_k_m", {"Q5_K": 24, "Q6_K": 5}),
        ("q4_k_s", {"Q4_K": 24, "Q5_K": 4, "Q6_K": 1}),
        ("q5_k_s", {"Q5_K": 28, "Q6_K": 1}),
        ("q3_k_m", {"Q3_K": 16, "Q4_K": 10, "Q5_K": 2, "Q6_K": 1}),
        ("q6_k", {"Q6_K": 29}),
        ("q8_0", {"Q8_0": 29}),
        ("q5_0", {"Q5_0": 28, "Q6_K": 1}),
        ("q4_0", {"Q4_0": 28, "Q6_K": 1}),
        ("f16", {"F16": 29}),
        ("bf16", {"BF16": 29}),
    ],
)
def test_a_tiny_model_of_four_tied_layers_gets_llama_cpps_mixture(method: str, expected: dict[str, int]) -> None:
    assert counts(method, 4, tied=True, hidden=512, inner=1024) == expected


def test_the_layers_with_more_bits_are_the_outer_eighths_and_every_third_between() -> None:
    types = [tensor_type("q4_k_m", f"blk.{i}.ffn_down.weight", i, 16, 512, True) for i in range(16)]
    assert [i for i, kind in enumerate(types) if kind == "Q6_K"] == [0, 1, 4, 7, 10, 13, 14, 15]


def test_tied_embeddings_take_the_outputs_type() -> None:
    assert tensor_type("q4_k_m", "token_embd.weight", 0, 4, 512, tied=True) == "Q6_K"
    assert tensor_type("q4_k_m", "token_embd.weight", 0, 4, 512, tied=False) == "Q4_K"
    assert tensor_type("q8_0", "token_embd.weight", 0, 4, 512, tied=True) == "Q8_0"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["blk.0.attn_norm.weight", "blk.0.attn_q.bias", "output_norm.weight"])
def test_norms_and_biases_stay_float32(method: str, name: str) -> None:
    assert tensor_type(method, name, 0, 2, 512, False) == "F32"


@pytest.mark.parametrize(
    ("method", "role", "expected"),
    [
        ("q3_k_m", "attn_q", "Q4_0"),
        ("q4_k_m", "attn_q", "Q5_0"),
        ("q5_k_m", "attn_q", "Q5_1"),
        ("q6_k", "attn_q", "Q8_0"),
        ("q4_k_m", "output", "Q8_0"),
        ("q4_0", "output", "Q8_0"),
        ("q4_0", "attn_q", "Q4_0"),
    ],
)
def test_rows_that_256_does_not_divide_fall_back(method: str, role: str, expected: str) -> None:
    name = "output.weight" if role == "output" else f"blk.1.{role}.weight"
    assert tensor_type(method, name, 1, 4, 896, False) == expected


def test_rows_that_32_does_not_divide_fall_back_to_f16_or_are_refused() -> None:
    assert tensor_type("q4_k_m", "blk.1.attn_q.weight", 1, 4, 100, False) == "F16"
    with pytest.raises(SystemExit, match=r"blk\.1\.attn_q\.weight: its rows of 100 weights .* Use f16 or bf16"):
        tensor_type("q4_0", "blk.1.attn_q.weight", 1, 4, 100, False)


def test_the_values_of_80_layers_get_five_bits() -> None:
    types = {tensor_type("q4_k_m", f"blk.{i}.attn_v.weight", i, 80, 8192, False) for i in range(80)}
    assert types == {"Q5_K", "Q6_K"}
    assert tensor_type("q4_k_m", "blk.12.attn_v.weight", 12, 64, 8192, False) == "Q4_K"
