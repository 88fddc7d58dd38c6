"""kquants.py as plain Python, a few blocks of each format: what `make coverage` and `make mutants` can look into.

Run: NUMBA_DISABLE_JIT=1 python -m pytest tests/shared/test_kquants_uncompiled.py
"""

import os

import pytest
import torch

from stages.shared.kquants import quantize
from tests.shared.test_kquants import WITH_SCALES, by_ggml

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("NUMBA_DISABLE_JIT"), reason="a minute of work for a compiler; test_kquants.py has it"
    ),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, where C and the compiled code are silent
]


def rows(kind: str) -> torch.Tensor:
    """Rows of two blocks of 256: usual weights, then some of every kind that has a branch of its own."""
    dice = torch.Generator().manual_seed(7)
    weights = torch.randn(5, 512, generator=dice) * 0.02
    weights[1] = 0.0
    weights[2, ::37] *= 60
    weights[3] = weights[3].abs() + 1.0
    weights[4, 256:] *= 1e-9
    return weights if kind in ("Q8_0", "Q5_0", "Q4_0", "Q5_1", "Q4_1") else weights[[0, 1, 2, 4]]


@pytest.mark.parametrize("kind", WITH_SCALES)
def test_every_byte_is_ggmls_without_and_with_an_importance_matrix(kind: str) -> None:
    weights = rows(kind)
    importance = torch.rand(512, generator=torch.Generator().manual_seed(1))
    assert torch.equal(quantize(weights, kind), by_ggml(weights, kind))
    assert torch.equal(quantize(weights, kind, importance), by_ggml(weights, kind, importance))
