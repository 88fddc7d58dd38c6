"""kquants.py against ggml's own quantizer, which xllamacpp's library exports."""

import ctypes
import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from stages.shared.kquants import FORMATS, quantize

ROOT = Path(__file__).parents[2]
BASE_TINY = ROOT / "models/base-tiny"
COLUMNS = 1024
WITH_SCALES = [kind for kind, form in FORMATS.items() if form.encode is not None]


@cache
def ggml() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None and spec.origin is not None
    library = ctypes.CDLL(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    sizes = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *sizes, ctypes.c_void_p]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def by_ggml(weights: Tensor, kind: str, importance: Tensor | None = None) -> Tensor:
    """What llama.cpp writes for these rows, with or without an importance matrix."""
    source = np.ascontiguousarray(weights.float().numpy())
    rows, columns = source.shape
    target = np.zeros((rows, columns // FORMATS[kind].block * FORMATS[kind].bytes), np.uint8)
    number = int(gguf.GGMLQuantizationType[kind])
    cost = None if importance is None else ctypes.c_void_p(importance.data_ptr())
    written = ggml().ggml_quantize_chunk(number, source.ctypes.data, target.ctypes.data, 0, rows, columns, cost)
    assert written == target.nbytes
    return torch.from_numpy(target)


def noise(rows: int = 256, seed: int = 0) -> Tensor:
    return torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(seed))


def with_outliers(base: Tensor, value: float) -> Tensor:
    """One weight of each row replaced, and in the lower half of the rows its negative."""
    changed = base.clone()
    rows = torch.arange(len(changed))
    changed[rows, rows * 37 % COLUMNS] = torch.where(rows < len(rows) // 2, value, -value)
    return changed


def cases() -> dict[str, Tensor]:
    base = noise() * 0.02
    columns = base.clone()
    columns[:, ::97] *= 30
    scales = torch.logspace(-8, 2, base.numel() // 32)[torch.randperm(base.numel() // 32)]
    lone = -base.abs()
    lone.view(-1, 32)[:, 5] = -3.0
    alternating = torch.full((8, COLUMNS), 0.1)
    alternating[:, 1::2] *= -1
    return {
        "gaussian": base,
        "gaussian in bf16": base.bfloat16().float(),
        "heavy-tailed": noise() / (noise(seed=1).abs() + 1e-3) * 0.01,
        "outlier columns": columns,
        "every scale": (base.view(-1, 32) * scales[:, None]).view_as(base),
        "sparse": torch.where(noise(seed=2) > 0.3, 0, base),
        "few values": (base * 50).round() / 50,
        "zeros": torch.zeros(8, COLUMNS),
        "negative zeros": -torch.zeros(8, COLUMNS),
        "positive constant": torch.full((8, COLUMNS), 0.37),
        "negative constant": torch.full((8, COLUMNS), -0.37),
        "one outlier among zeros": with_outliers(torch.zeros(64, COLUMNS), 5.0),
        "one outlier in noise": with_outliers(base[:64] * 1e-3, 50.0),
        "one negative outlier per group": lone,
        "alternating signs": alternating,
        "nearly alternating": alternating.repeat(8, 1) * (1 + 0.01 * noise(64)),
        "all negative": -base.abs(),
        "all positive": base.abs(),
        "far below zero": -1 + 1e-5 * noise(),
        "far above zero": 1 + 0.01 * noise(),
        "1e5": noise(64) * 1e5,
        "1e18": noise(64) * 1e18,
        "1e30": noise(64) * 1e30,
        "1e-7": noise(64) * 1e-7,
        "1e-15": noise(64) * 1e-15,
        "1e-30": noise(64) * 1e-30,
        "denormal": noise(64) * 1e-40,
    }


CASES = cases()
IMPORTANCE = {
    "even": torch.ones(COLUMNS),
    "uniform": torch.rand(COLUMNS, generator=torch.Generator().manual_seed(5)) + 1e-3,
    "heavy-tailed": noise(1, seed=6)[0].square() * torch.logspace(-4, 3, COLUMNS)[torch.randperm(COLUMNS)],
}


def differing_blocks(ours: Tensor, theirs: Tensor, kind: str) -> int:
    return int((ours != theirs).view(-1, FORMATS[kind].bytes).any(1).sum())


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "F32"])
@pytest.mark.parametrize("case", CASES)
def test_every_byte_is_ggmls(kind: str, case: str) -> None:
    assert differing_blocks(quantize(CASES[case], kind), by_ggml(CASES[case], kind), kind) == 0


@pytest.mark.parametrize("kind", WITH_SCALES)
@pytest.mark.parametrize("importance", IMPORTANCE)
def test_every_byte_is_ggmls_with_an_importance_matrix(kind: str, importance: str) -> None:
    for case, weights in CASES.items():
        cost = IMPORTANCE[importance]
        ours, theirs = quantize(weights, kind, cost), by_ggml(weights, kind, cost)
        assert differing_blocks(ours, theirs, kind) == 0, case


@pytest.mark.parametrize("kind", sorted(set(WITH_SCALES) - {"Q8_0"}))
def test_an_importance_matrix_lowers_the_error_that_it_weighs(kind: str) -> None:
    weights, cost = CASES["gaussian"], IMPORTANCE["heavy-tailed"]
    errors = []
    for encoded in (quantize(weights, kind), quantize(weights, kind, cost)):
        decoded = gguf.dequantize(encoded.numpy(), gguf.GGMLQuantizationType[kind])
        errors.append(((torch.from_numpy(decoded) - weights).square() * cost).sum())
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("kind", WITH_SCALES)
def test_every_byte_is_ggmls_where_columns_cost_nothing(kind: str) -> None:
    """Where such a column holds a group's only large weight, the fitted scale turns negative and wraps in its byte."""
    generator = torch.Generator().manual_seed(9)
    lone = torch.randn(64, COLUMNS, generator=generator) * 0.02
    lone.view(-1, 32)[:, 5] = 3 * torch.randn(lone.numel() // 32, generator=generator)
    weights = torch.cat([lone, -lone.abs(), *(case[:64] for case in CASES.values())])
    outliers = torch.rand(COLUMNS, generator=generator) + 1e-3
    outliers.view(-1, 32)[:, 5] = 0
    every_third = torch.where(torch.rand(COLUMNS, generator=generator) < 0.3, 0, outliers)
    whole_blocks = torch.where(torch.arange(COLUMNS) % 512 < 288, 0, outliers)
    for name, cost in (("outliers", outliers), ("every third", every_third), ("whole blocks", whole_blocks)):
        ours, theirs = quantize(weights, kind, cost), by_ggml(weights, kind, cost)
        assert differing_blocks(ours, theirs, kind) == 0, name


@pytest.fixture(scope="module")
def real_and_full_size() -> dict[str, Tensor]:
    """Some rows of every matrix of the embedded base, and of matrices as wide as a 14B's."""
    with safe_open(BASE_TINY / "model.safetensors", framework="pt") as base:
        matrices = {name: base.get_tensor(name) for name in base.keys()}  # noqa: SIM118, it is no dict
    some = {name: matrix[::16].float() for name, matrix in matrices.items() if matrix.dim() == 2}
    generator = torch.Generator().manual_seed(4)
    for columns in (5120, 13824):
        wide = torch.randn(48, columns, generator=generator)
        tails = torch.randn(48, columns, generator=generator).abs() + 1e-3
        some |= {f"random, {columns}": wide * 0.02, f"heavy-tailed, {columns}": wide / tails * 0.01}
    return some


@pytest.mark.parametrize("kind", WITH_SCALES)
def test_every_byte_is_ggmls_on_the_base_and_at_full_width(kind: str, real_and_full_size: dict[str, Tensor]) -> None:
    """So no quant is a step off and the error is ggml's own, with and without an importance matrix."""
    generator = torch.Generator().manual_seed(3)
    for name, weights in real_and_full_size.items():
        cost = torch.rand(weights.shape[1], generator=generator).square() * torch.logspace(-3, 1, weights.shape[1])
        for importance in (None, cost):
            ours, theirs = quantize(weights, kind, importance), by_ggml(weights, kind, importance)
            assert differing_blocks(ours, theirs, kind) == 0, name


# Relative to the weights' standard deviation; one bit more halves the error.
@pytest.mark.parametrize(("kind", "bound"), [("Q3_K", 0.20), ("Q4_K", 0.085), ("Q5_K", 0.045), ("Q6_K", 0.025)])
def test_what_is_written_decodes_to_the_weights(kind: str, bound: float) -> None:
    weights = CASES["gaussian"]
    decoded = gguf.dequantize(quantize(weights, kind).numpy(), gguf.GGMLQuantizationType[kind])
    error = np.sqrt(np.mean((decoded - weights.numpy()) ** 2)) / weights.std().item()
    assert bound / 2 < error < bound


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "Q3_K", "Q8_0"])
def test_chunks_join_without_a_seam(kind: str) -> None:
    weights = noise(700) * 0.02
    pieces = torch.cat([quantize(rows, kind) for rows in torch.split(weights, 100)])
    assert torch.equal(quantize(weights, kind), pieces)


def test_sixteen_bit_weights_need_no_conversion_by_the_caller() -> None:
    weights = (noise(8) * 0.02).bfloat16()
    assert torch.equal(quantize(weights, "Q4_K"), quantize(weights.float(), "Q4_K"))


def test_a_later_process_finds_the_compiled_code_again(tmp_path: Path) -> None:
    program = """if True:
        import torch
        from stages.shared.kquants import FORMATS, _tiles_of, quantize
        quantize(torch.randn(4, 64), "Q8_0")
        print(sum(_tiles_of(FORMATS["Q8_0"].encode).stats.cache_misses.values()))
    """

    def compiled() -> str:
        command = [sys.executable, "-c", program]
        cache = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True, check=True, timeout=300
        )
        return done.stdout.strip()

    assert [compiled(), compiled()] == ["1", "0"]


def test_rows_that_blocks_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 256 weights, not 320"):
        quantize(torch.zeros(2, 320), "Q4_K")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("importance", [None, *IMPORTANCE])
def test_a_gpu_writes_the_same_bytes(kind: str, importance: str | None) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cost = IMPORTANCE[importance] if importance else None
    # Beyond a float16 scale, which no file may hold, both write NaN, each with a sign and a cast of its own.
    cases = {name: weights for name, weights in CASES.items() if weights.abs().max() < 65504}
    assert "heavy-tailed" in cases
    for name, weights in cases.items():
        assert torch.equal(quantize(weights.cuda(), kind, cost).cpu(), quantize(weights, kind, cost)), name
