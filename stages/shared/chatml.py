"""The one prompt format: ChatML, with nothing that the conversation does not say (no default system prompt).

Format: https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md, as Qwen2.5 was trained on it.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"

_TAG = re.compile(r"<(?=[|/a-zA-Z_])")

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def as_json(value: Any) -> str:
    r"""The JSON text of a message: two spaces of indentation, Spanish letters as they are.

    A `<` that a tag could begin with is written `\u003c`, which JSON reads as the same: no control token can stand in
    the text, `<tool_call>` no more than `<|im_end|>`, whatever splits it into tokens. llama.cpp's and Ollama's chat
    interfaces would take one for real in the middle of a message.
    """
    # Outside of strings JSON has no `<`, and json.dumps escapes none.
    return _TAG.sub(r"\\u003c", json.dumps(value, indent=2, ensure_ascii=False))


def prompt_text(system: str, user: str) -> str:
    """The text up to and including the line on which the assistant begins to write."""
    return f"{IM_START}system\n{system}{IM_END}\n{IM_START}user\n{user}{IM_END}\n{IM_START}assistant\n"


def answer_text(answer: str) -> str:
    """The assistant's turn as it is trained: the answer and the token that ends it."""
    return f"{answer}{IM_END}"


class Encoder:
    """Token ids of ChatML in which no text can pose as a control token.

    Args:
        tokenizer: a tokenizer that has `<|im_start|>` and `<|im_end|>` as single tokens.

    Attributes:
        control_tokens: every token that the tokenizer finds in a text before it splits the text.

    Raises:
        SystemExit: if one of the two is not a single token.

    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        for token in (IM_START, IM_END):
            if token not in vocabulary:
                raise SystemExit(
                    f"{tokenizer.name_or_path}: the tokenizer has no {token} token. Use a base that was "
                    "trained on ChatML, such as Qwen2.5."
                )
        self._start, self._end = vocabulary[IM_START], vocabulary[IM_END]
        self.control_tokens = sorted(tokenizer.get_added_vocab())

    def text(self, text: str) -> list[int]:
        """Ids of plain text; a control token spelled out in it stays text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def prompt(self, system: str, user: str) -> list[int]:
        """Ids of `prompt_text`."""
        return [
            *self._turn("system", system),
            *self.text("\n"),
            *self._turn("user", user),
            *self.text("\n"),
            self._start,
            *self.text("assistant\n"),
        ]

    def answer(self, answer: str) -> list[int]:
        """Ids of `answer_text`: `<|im_end|>` is the last one."""
        return [*self.text(answer), self._end]

    def decode(self, ids: list[int]) -> str:
        """The text of some ids, control tokens included."""
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _turn(self, role: str, content: str) -> list[int]:
        # Role and content are one stretch of text between control tokens, so they are encoded as one.
        return [self._start, *self.text(f"{role}\n{content}"), self._end]


def user_message(row_input: Mapping[str, Any]) -> str:
    """The user's turn of a data row: its `input` object as JSON."""
    return as_json({"context": row_input["context"], "requerimientos": row_input["requerimientos"]})
