"""The importance matrix: how large the numbers are that each column of a weight matrix is multiplied with.

Where they are large, an error in the weight costs much; the quantizers weigh errors with their mean squares.
Format: llama.cpp, tools/imatrix/imatrix.cpp (GGUF: `<tensor>.in_sum2` and `<tensor>.counts` for every matrix), which
`llama-quantize --imatrix` reads. Like llama.cpp's tool, it has no entry for the embeddings and the output matrix.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.shared.chatml_rows import read_texts
from stages.shared.gguf_writer import SourceModel
from stages.shared.layerwise import hidden_states, stored_weights
from stages.shared.transfer import fastest_dtype

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Imatrix:
    """Sums over some texts.

    Attributes:
        sums: GGUF name to the sum of squares over all tokens, [columns] float32, for every matrix of a layer.
        tokens: how many there were.
        texts: in how many texts.
        file: where those come from.

    """

    sums: "dict[str, Tensor]"
    tokens: int
    texts: int
    file: Path

    @property
    def mean_squares(self) -> "dict[str, Tensor]":
        """The importance as `kquants.quantize` takes it."""
        return {name: total / self.tokens for name, total in self.sums.items()}

    def metadata(self, stored_as: str) -> dict[str, str | int]:
        """What a file that was quantized with the matrix says of it, under the keys of llama.cpp's tools/quantize."""
        return {
            "quantize.imatrix.file": stored_as,
            "quantize.imatrix.dataset": str(self.file),
            "quantize.imatrix.entries_count": len(self.sums),
            "quantize.imatrix.chunks_count": self.texts,
        }


def collect(model: SourceModel, file: Path, count: int) -> Imatrix:
    """Run some texts of one of format_chatml's files, spread over it, through the 16-bit model that will be quantized.

    In the type that this machine multiplies fastest: a mean of squares does not feel bfloat16's rounding.
    """
    import torch

    sums: dict[str, Tensor] = {}

    def watch(name: str, rows: "Tensor") -> None:
        # float64 from text to text: a float32 sum over 100,000 tokens would lose the small ones.
        total = rows.float().square().sum(0).double()
        sums[name] = sums[name] + total if name in sums else total

    texts = [text.ids for text in read_texts(file)]
    count = min(count, len(texts))
    texts = [texts[at * len(texts) // count] for at in range(count)]
    hidden_states(model, stored_weights(model), texts, watch, fastest_dtype())
    on_host = {name: total.to("cpu", torch.float32) for name, total in sums.items()}
    return Imatrix(on_host, sum(map(len, texts)), len(texts), file)


def write_imatrix(target: Path, matrix: Imatrix) -> None:
    """Write the sums as llama.cpp's tool does; each text is a chunk."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(target, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [str(matrix.file)])
    writer.add_uint32("imatrix.chunk_count", matrix.texts)
    writer.add_uint32("imatrix.chunk_size", matrix.tokens // matrix.texts)
    for name in sorted(matrix.sums):
        writer.add_tensor(f"{name}.in_sum2", matrix.sums[name].numpy().reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.full((1, 1), matrix.tokens, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
