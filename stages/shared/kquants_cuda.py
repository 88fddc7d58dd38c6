"""kquants' own functions compiled for a GPU by Numba: a thread is one lane, so the bytes are the CPU's.

CUDA's compiler would fuse a product with the sum that it goes into: `multiply` keeps it from that.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False
# mypy: disable-error-code=attr-defined

from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from numba import cuda, float32, uint8
from numba.cuda import libdevice
from numba.cuda.extending import overload
from torch import Tensor

from stages.shared.kquants import SCRATCH, Format, mean_squares, multiply

_WEIGHTS_AT_ONCE = 1 << 26
_THREADS = 128  # of a thread block; four of these keep a multiprocessor's first-level cache from overflowing
_THREAD_BLOCKS = 4


@overload(multiply)
def _multiply_on_gpu(a, b):
    return lambda a, b: libdevice.fmul_rn(a, b)


_encode: Any = None  # a format's, and its weights per block: in the globals that `_kernel_of` gives the kernel
_size = 0


def _kernel(x, importance, used, energies, trials, out):
    """Run `_encode` on every column of x: [weights, blocks] float32."""
    f = cuda.local.array((SCRATCH, 1), float32)
    levels = cuda.local.array((_size, 1), uint8)
    energy = cuda.local.array(1, float32)
    for block in range(cuda.grid(1), out.shape[0], cuda.gridsize(1)):
        column = block % importance.shape[1]
        energy[0] = energies[block // importance.shape[1]]
        some = importance[:used, column : column + 1]
        _encode(x[:, block : block + 1], some, energy, trials, f, levels, out[block : block + 1])


def _mean_squares_kernel(rows, out):
    for row in range(cuda.grid(1), len(rows), cuda.gridsize(1)):
        mean_squares(rows[row : row + 1], out[row : row + 1])


@cache
def _compiled(kernel: Any, encode: Any = None, size: int = 0) -> Any:
    """The kernel for a format. Numba stores the code under its name and goes by this file alone, hence the hash."""
    own = FunctionType(kernel.__code__, globals() | {"_encode": encode, "_size": size})
    version = sha256(Path(__file__).with_name("kquants.py").read_bytes()).hexdigest()[:16]
    own.__qualname__ += f"{encode.__name__ if encode else ''}_{version}"
    return cuda.jit(own, cache=True)


def encode_on_gpu(weights: Tensor, form: Format, importance: Tensor | None) -> Tensor:
    """`kquants.quantize` for weights on a GPU, on torch's current stream; uint8 [blocks, bytes]."""
    rows, columns = weights.shape
    out = torch.empty(rows * columns // form.block, form.bytes, dtype=torch.uint8, device=weights.device)
    per_row = columns // form.block
    processors = torch.cuda.get_device_properties(weights.device).multi_processor_count
    pointer = torch.cuda.current_stream(weights.device).cuda_stream
    stream = cuda.external_stream(pointer) if pointer else cuda.default_stream()
    launch = (processors * _THREAD_BLOCKS, _THREADS, stream)
    used, trials = (0, form.trials) if importance is None else (form.block, form.weighted_trials)
    cost = weights.new_zeros(form.block, per_row, dtype=torch.float32)
    if importance is not None:
        cost = importance.to(weights.device, torch.float32).view(-1, form.block).t().contiguous()
    device_trials = torch.from_numpy(trials).to(weights.device)
    for start in range(0, rows, rows_at_once := max(1, _WEIGHTS_AT_ONCE // columns)):
        some = weights[start : start + rows_at_once].float().contiguous()
        energies = some.new_zeros(len(some))
        if used == 32:
            _compiled(_mean_squares_kernel)[launch](some, energies)
        x = some.view(-1, form.block).t().contiguous()
        part = out[start * per_row :][: x.shape[1]]
        _compiled(_kernel, form.encode, form.block)[launch](x, cost, used, energies, device_trials, part)
    return out
