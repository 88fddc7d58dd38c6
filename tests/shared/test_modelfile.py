"""modelfile.py: lengths, escapes, and a template that renders what the model was trained on."""

from pathlib import Path

import pytest

from stages.shared.chatml import IM_END, prompt_text
from stages.shared.modelfile import TEMPLATE, lengths, modelfile
from tests.servers import render_go_template


def test_the_template_renders_the_prompt_of_training_and_makes_up_no_system_prompt(tmp_path: Path) -> None:
    """Quotation marks, angle brackets and what looks like a template stay as they are."""
    user, answer = '{"a": "<b> & {{ .System }} \\u003c|"}', "[\"'1'\"]"
    values = [
        {"System": "Eres PM.", "Prompt": user, "Response": answer},
        {"System": "", "Prompt": "hola", "Response": ""},
    ]
    assert render_go_template(TEMPLATE, values, tmp_path / "page") == [
        prompt_text("Eres PM.", user) + answer + IM_END + "\n",
        "<|im_start|>user\nhola<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n",
    ]


def test_lengths_leave_room_for_half_as_much_again() -> None:
    assert lengths(prompt_max=500, answer_max=1000, context=4096) == (1536, 2048)


def test_lengths_end_with_the_models_context() -> None:
    assert lengths(prompt_max=500, answer_max=1000, context=1800) == (1300, 1800)


def test_the_modelfile_names_file_prompt_stops_and_lengths() -> None:
    lines = modelfile("a-Q4_K_M.gguf", "Eres PM.", 1536, 2048).splitlines()
    assert lines[0] == "FROM ./a-Q4_K_M.gguf"
    assert 'SYSTEM """Eres PM."""' in lines
    assert lines[-6:] == [
        'PARAMETER stop "<|im_end|>"',
        'PARAMETER stop "<|im_start|>"',
        'PARAMETER stop "<|endoftext|>"',
        "PARAMETER temperature 0",
        "PARAMETER num_predict 1536",
        "PARAMETER num_ctx 2048",
    ]


@pytest.mark.parametrize("system", ['Di """hola"""', 'Di "hola"'])
def test_a_system_prompt_that_would_end_the_text_is_refused(system: str) -> None:
    with pytest.raises(SystemExit, match=r"format_chatml\.system_prompt"):
        modelfile("a.gguf", system, 64, 256)
