"""Ollama's Modelfile: the same prompt, stop tokens and lengths that the model was trained with.

Format: https://docs.ollama.com/modelfile
"""

import math

from stages.shared.chatml import END_OF_TEXT, IM_END, IM_START

# Go's template language; renders what `chatml.prompt_text` renders, then the answer.
TEMPLATE = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)
_ANSWER_ROOM = 1.5  # an answer may be this much longer than the longest one in the data


def lengths(prompt_max: int, answer_max: int, context: int) -> tuple[int, int]:
    """Token limits that fit the data.

    Args:
        prompt_max: tokens of the longest prompt.
        answer_max: tokens of the longest answer.
        context: what the model can hold.

    Returns:
        `num_predict`, a multiple of 64, and `num_ctx`, a multiple of 256, both less where the context ends.

    Raises:
        SystemExit: a prompt that leaves no room for an answer.

    """
    if prompt_max >= context:
        raise SystemExit(
            f"reports/format_chatml.json: the longest prompt has {prompt_max} tokens and the model holds {context}: no "
            "answer fits. Shorten that example, or use a base with a longer context."
        )
    predict = math.ceil(answer_max * _ANSWER_ROOM / 64) * 64
    window = min(math.ceil((prompt_max + predict) / 256) * 256, context)
    return min(predict, window - prompt_max), window


def modelfile(gguf: str, system: str, num_predict: int, num_ctx: int) -> str:
    """The text of a Modelfile.

    Args:
        gguf: file name of the model beside the Modelfile.
        system: system prompt.
        num_predict: tokens that an answer may have.
        num_ctx: tokens that prompt and answer may have together.

    Raises:
        SystemExit: a system prompt that a Modelfile cannot hold.

    """
    if '"""' in system or system.endswith('"'):
        raise SystemExit(
            'params.yaml: format_chatml.system_prompt: holds """ or ends with ", which ends a text in a '
            "Modelfile. Use other quotation marks."
        )
    stops = "".join(f'PARAMETER stop "{token}"\n' for token in (IM_END, IM_START, END_OF_TEXT))
    return (
        f"FROM ./{gguf}\n\n"
        f'TEMPLATE """{TEMPLATE}"""\n\n'
        f'SYSTEM """{system}"""\n\n'
        f"{stops}"
        "PARAMETER temperature 0\n"
        f"PARAMETER num_predict {num_predict}\n"
        f"PARAMETER num_ctx {num_ctx}\n"
    )
