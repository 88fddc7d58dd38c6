"""A Qwen model run layer by layer, so that one layer's weights are in memory and not the model's.

All texts pass one layer before the next layer is read. In float32 where distributions are compared: bfloat16's own
rounding is larger than what a good quantization loses.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.shared.gguf_writer import SourceModel
from stages.shared.transfer import device

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Callable[[str], Tensor]
    Watch = Callable[[str, Tensor], None]


def stored_weights(model: SourceModel) -> "Weights":
    """The model's own weights by GGUF name, in the type that they are stored in."""
    from safetensors import safe_open

    def read(name: str) -> "Tensor":
        stored = model.tensors[name]
        with safe_open(stored.file, framework="pt") as source:
            weights: Tensor = source.get_tensor(stored.name)
        return weights

    return read


def gguf_weights(file: Path) -> "Weights":
    """A GGUF's weights by name, decoded to float32 by gguf-py, which gives what llama.cpp's kernels decode to."""
    import torch
    from gguf import GGUFReader, dequantize

    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}

    def read(name: str) -> "Tensor":
        return torch.from_numpy(dequantize(tensors[name].data, tensors[name].tensor_type).copy())

    return read


def hidden_states(
    model: SourceModel,
    weights: "Weights",
    texts: Sequence[Sequence[int]],
    watch: "Watch | None" = None,
    dtype: str = "float32",
) -> "list[Tensor]":
    """Run the texts through the model, up to the output matrix.

    Args:
        model: for its shape and its tensors' names.
        weights: GGUF name to tensor.
        texts: token ids.
        watch: told the GGUF name of each matrix of a layer and the rows that it is multiplied with, [tokens, columns].
        dtype: what the layers compute in, "float32" or "bfloat16".

    Returns:
        for each text [tokens, hidden size] in that type, on `device()`, as the output matrix takes it.

    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(model.folder)
    with torch.device("meta"):
        auto: Any = AutoModelForCausalLM
        network = auto.from_config(config, dtype=torch.float32, attn_implementation="sdpa").model.eval()
    place, kind = device(), getattr(torch, dtype)
    rotary = type(network.rotary_emb)(config=config).to(place)
    with torch.inference_mode():
        embeddings = weights("token_embd.weight")
        states = [embeddings[torch.tensor(ids)].to(place, kind) for ids in texts]
        del embeddings
        for index, layer in enumerate(network.layers):
            own, handles = {}, []
            for name, stored in model.tensors.items():
                if name.startswith(f"blk.{index}."):
                    key = stored.name.removeprefix(f"model.layers.{index}.")
                    own[key] = weights(name).to(place).to(kind)
                    if watch is not None and own[key].dim() == 2:
                        module = layer.get_submodule(key.removesuffix(".weight"))
                        handles.append(module.register_forward_pre_hook(_told(watch, name)))
            layer.load_state_dict(own, assign=True)
            for at, state in enumerate(states):
                row = state.unsqueeze(0)
                positions = torch.arange(len(state), device=place).unsqueeze(0)
                output = layer(row, attention_mask=None, position_embeddings=rotary(row, positions))
                states[at] = (output if isinstance(output, torch.Tensor) else output[0])[0]
            for handle in handles:
                handle.remove()
            layer.to("meta")
        network.norm.load_state_dict({"weight": weights("output_norm.weight").to(place, kind)}, assign=True)
        return [network.norm(state) for state in states]


def _told(watch: "Watch", name: str) -> Callable[[Any, tuple[Any, ...]], None]:
    return lambda module, arguments: watch(name, arguments[0].flatten(0, -2))


def output_matrix(model: SourceModel, weights: "Weights") -> "Tensor":
    """The matrix from hidden state to logits, float32 [vocabulary, hidden size] on `device()`."""
    return weights("token_embd.weight" if model.tied else "output.weight").to(device()).float()
