"""Safetensors files written one tensor at a time, so that memory holds three tensors and not one shard.

Format: https://github.com/huggingface/safetensors#format (8 bytes of header length, JSON header, raw tensors).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.shared.ahead import ahead

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

SIXTEEN_BIT = {"bfloat16": "BF16", "float16": "F16"}


def write_sixteen_bit(
    path: Path, dtype: str, shapes: dict[str, list[int]], tensors: Iterable[tuple[str, "Tensor"]]
) -> str:
    """Write one file of 16-bit tensors, pulling them from `tensors` as it goes.

    Args:
        path: the file to write.
        dtype: "bfloat16" or "float16", of every tensor.
        shapes: name to shape, in the order in which `tensors` yields them.
        tensors: pairs of name and CPU tensor of that dtype and shape.

    Returns:
        XXH3-128 of the file, taken of what was to be written and not of what the disk then gives back.

    """
    import torch
    import xxhash

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        count = 1
        for side in shape:
            count *= side
        header[name] = {"dtype": SIXTEEN_BIT[dtype], "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # readers map the tensors in place: keep them aligned
    text = len(text).to_bytes(8, "little") + text
    digest = xxhash.xxh3_128(text)

    def hashed() -> "Iterator[NDArray[np.uint8]]":
        for (expected, shape), (name, tensor) in zip(shapes.items(), tensors, strict=True):
            assert (name, list(tensor.shape)) == (expected, shape)
            content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(content.data)
            yield content

    with path.open("wb") as out:
        out.write(text)
        for content in ahead(hashed()):
            content.tofile(out)
    return digest.hexdigest()
