"""What quantization costs: how far a file's next-token distributions are from those of the 16-bit model.

Measured over the answers' tokens, each given the true text before it. Weights are decoded to float32 and run in
PyTorch, so what is measured is the weights' rounding alone: llama.cpp also rounds activations to 8 bits on a CPU.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stages.shared.chatml_rows import Text
from stages.shared.gguf_writer import SourceModel
from stages.shared.layerwise import hidden_states, output_matrix, stored_weights

if TYPE_CHECKING:
    from torch import Tensor

    from stages.shared.layerwise import Weights

_TOKENS_AT_ONCE = 256  # two distributions over the vocabulary for each


class Reference:
    """The 16-bit model's hidden states for some texts, to hold files against.

    Args:
        model: the merged model.
        texts: what both are asked; the answers have at least one token together.

    """

    def __init__(self, model: SourceModel, texts: Sequence[Text]) -> None:
        self._model, self._texts = model, texts
        self._states = self._answer_states(stored_weights(model))

    def damage(self, weights: "Weights") -> dict[str, float]:
        """Compare a file's weights with the model's.

        Returns:
            `kl_divergence`: the mean over the tokens of KL(16-bit || file), in nats; `perplexity_ratio`: the file's
            perplexity over the 16-bit model's.

        """
        import torch
        from torch.nn.functional import cross_entropy, kl_div

        divergence = surprise = tokens = 0.0
        with torch.inference_mode():
            states = self._answer_states(weights)
            heads = (output_matrix(self._model, stored_weights(self._model)), output_matrix(self._model, weights))
            for text, own, other in zip(self._texts, self._states, states, strict=True):
                ids = torch.tensor(text.answer, device=own.device)
                for at in range(0, len(ids), _TOKENS_AT_ONCE):
                    some = slice(at, at + _TOKENS_AT_ONCE)
                    ours, theirs = (
                        (state[some] @ head.T).log_softmax(-1) for state, head in zip((own, other), heads, strict=True)
                    )
                    divergence += kl_div(theirs, ours, reduction="sum", log_target=True).item()
                    surprise += cross_entropy(theirs, ids[some], reduction="sum").item()
                    surprise -= cross_entropy(ours, ids[some], reduction="sum").item()
                tokens += len(ids)
        ratio = math.exp(surprise / tokens)
        return {"kl_divergence": round(divergence / tokens, 6) + 0.0, "perplexity_ratio": round(ratio, 5)}

    def _answer_states(self, weights: "Weights") -> "list[Tensor]":
        """For each text the states that its answer's tokens are predicted from."""
        states = hidden_states(self._model, weights, [text.ids for text in self._texts])
        return [state[len(text.prompt) - 1 : -1] for state, text in zip(states, self._texts, strict=True)]
