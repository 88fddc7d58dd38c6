"""Tensors from disk to the device and back, beside the computation rather than between its steps."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def device() -> str:
    """Where weights are computed: "cuda" if there is a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fastest_dtype() -> str:
    """The type that this machine multiplies fastest, by its instructions alone: "bfloat16" or "float32"."""
    import torch

    native = torch.cuda.is_available() or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bfloat16" if native else "float32"


def to_device(tensor: "Tensor") -> "Tensor":
    """A copy on `device()`, complete on return; for a thread that reads ahead.

    A tensor of a safetensors file is a window on the disk: the copy is what reads it. On a GPU the copy runs on a
    stream of its own, since on the computation's it would wait for that.
    """
    import torch

    if device() == "cpu":
        return tensor.clone()
    stream = _copies()
    with torch.cuda.stream(stream):
        copy = tensor.to("cuda")
    stream.synchronize()
    copy.record_stream(torch.cuda.default_stream())  # its memory is not the next copy's before the computation ends
    return copy


@cache
def _copies() -> Any:
    """The stream of all copies: torch's allocator keeps the memory of each stream for that stream."""
    import torch

    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def to_host(tensor: "Tensor") -> "Tensor":
    """The tensor in host memory; from a GPU by way of page-locked memory, which is reused and three times as fast."""
    import torch

    if tensor.device.type == "cpu":
        return tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor)
    return copy
