"""llama_runtime.py: a real GGUF of a tiny random model in the real llama.cpp."""

import json
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from stages.shared import llama_runtime
from stages.shared.chatml import IM_END, Encoder, prompt_text
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.llama_runtime import Llama
from tests.tiny_model import write_model

ABOUT = About("Tiny", "For tests.", "apache-2.0", ["es"], [], "a/b", "0123", {})
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"prioridad": {"enum": ["Alta", "Media"]}, "listo": {"type": "boolean"}},
    "required": ["prioridad", "listo"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def gguf(folder: Path) -> Path:
    target = folder / "tiny.gguf"
    write_ggufs(read_model(folder), {"q8_0": target}, ABOUT)
    return target


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def prompts(encoder: Encoder) -> list[list[int]]:
    return [encoder.prompt("Eres breve.", f"Caso {number}") for number in range(7)]


def test_llama_cpp_tokenizes_and_renders_a_prompt_as_we_do(gguf: Path, encoder: Encoder) -> None:
    system, user = (
        "Eres un PM.\n",
        '{\n  "context": "¿Qué? 1.234 € — «años» 🏥",\n  "requerimientos": ["p95 < 300 ms"]\n}',
    )
    with Llama(gguf, 1, 64) as llama:
        assert llama.tokenize(prompt_text(system, user)) == encoder.prompt(system, user)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        assert llama.apply_template(messages) == prompt_text(system, user)


def test_an_answer_that_reaches_the_limit_is_not_finished(gguf: Path, prompts: list[list[int]]) -> None:
    with Llama(gguf, 2, 128) as llama:
        answers = llama.answers(prompts, 5, None, "free")
    assert [(answer.finished, answer.tokens) for answer in answers] == [(False, 5)] * len(prompts)


def test_an_answer_held_to_a_schema_is_the_schema_s_and_ends_itself(gguf: Path, prompts: list[list[int]]) -> None:
    with Llama(gguf, 3, 192) as llama:
        answers = llama.answers(prompts, 100, SCHEMA, "held")
    assert all(answer.finished for answer in answers)
    for answer in answers:
        value = json.loads(answer.text)
        assert list(value) == ["prioridad", "listo"]
        assert value["prioridad"] in ("Alta", "Media") and isinstance(value["listo"], bool)
        assert IM_END not in answer.text


def test_answers_come_in_the_order_of_their_prompts(gguf: Path, prompts: list[list[int]]) -> None:
    """Of three slots, the one that takes the first prompt is not the first to end."""
    with Llama(gguf, 3, 128) as llama:
        alone = [llama.answers([prompt], 12, None, "one")[0].text for prompt in prompts]
        together = [answer.text for answer in llama.answers(prompts, 12, None, "all")]
    assert len(set(alone)) > 1
    assert together == alone


def test_a_newly_loaded_file_repeats_its_answers_to_the_letter(gguf: Path, prompts: list[list[int]]) -> None:
    runs = []
    for _ in range(2):
        with Llama(gguf, 4, 128) as llama:
            runs.append([answer.text for answer in llama.answers(prompts, 40, None, "free")])
    assert runs[0] == runs[1]


def test_a_schema_that_llama_cpp_would_only_complain_about_is_refused(gguf: Path, prompts: list[list[int]]) -> None:
    with (
        Llama(gguf, 1, 128) as llama,
        pytest.raises(SystemExit, match=r"epic.schema.json: \$defs.output: llama.cpp cannot"),
    ):
        llama.answers(prompts, 5, {"type": "nonsense"}, "held")


def test_progress_is_shown_while_it_writes(
    gguf: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(llama_runtime.Pace, "due", lambda _: True)
    with Llama(gguf, 2, 128) as llama:
        llama.answers(prompts, 5, None, "q8_0 free")
    lines = capsys.readouterr().out.splitlines()
    done = [int(line.removeprefix("  q8_0 free: ").partition("/7 answers, ")[0]) for line in lines]
    assert done == sorted(done)
    assert done[-1] == 7
    assert lines[-1].endswith(" tokens/s")


def test_a_missing_file_and_one_that_is_no_gguf_are_refused_by_name(tmp_path: Path) -> None:
    with (
        pytest.raises(SystemExit, match=r"none.gguf: not found. Run `dvc repro quantize_gguf`"),
        Llama(tmp_path / "none.gguf", 1, 64),
    ):
        pass
    (tmp_path / "text.gguf").write_text("nothing of the kind")
    with pytest.raises(SystemExit, match=r"text.gguf: llama.cpp cannot load it"), Llama(tmp_path / "text.gguf", 1, 64):
        pass


def test_more_context_than_the_model_holds_is_refused_with_both_numbers(gguf: Path) -> None:
    with (
        pytest.raises(SystemExit, match=r"holds 512 tokens; .* take 513 .* Lower evaluate.max_answer_tokens"),
        Llama(gguf, 1, 513),
    ):
        pass


def test_a_file_that_is_let_go_at_once_never_hangs(gguf: Path) -> None:
    code = (
        "import sys, pathlib, stages.shared.llama_runtime as runtime\n"
        "for _ in range(200):\n"
        "    with runtime.Llama(pathlib.Path(sys.argv[1]), 1, 64): pass\n"
    )
    command = [sys.executable, "-c", code, str(gguf)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=120)


def test_an_interrupted_answer_leaves_no_server_behind(
    gguf: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt(text)

    monkeypatch.setattr(llama_runtime.Pace, "due", lambda _: True)
    monkeypatch.setattr(llama_runtime, "say", interrupt)
    with pytest.raises(KeyboardInterrupt), Llama(gguf, 2, 512) as llama:
        llama.answers(prompts, 400, None, "free")
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection(llama._address.removeprefix("http://")).request("GET", "/health")


def test_leaving_the_block_stops_the_server(gguf: Path) -> None:
    with Llama(gguf, 1, 64) as llama:
        address = llama._address.removeprefix("http://")
        llama.tokenize("hola")
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection(address).request("GET", "/health")


def test_an_error_of_the_server_is_raised_with_its_words(gguf: Path) -> None:
    with Llama(gguf, 1, 64) as llama, pytest.raises(RuntimeError, match="exceeds the available context size"):
        llama.answers([[5] * 400], 5, None, "long")


def test_an_error_of_a_running_server_is_told_in_one_line_with_its_words(gguf: Path) -> None:
    with (
        Llama(gguf, 1, 128) as elsewhere,
        Llama(gguf, 1, 64, elsewhere._address) as asking,
        pytest.raises(SystemExit, match=r"evaluate\.endpoint: http.* broke an answer off .*exceeds the available"),
    ):
        asking.answers([[5] * 400], 5, None, "long")


def test_a_server_that_runs_already_answers_what_the_embedded_one_answers(gguf: Path, prompts: list[list[int]]) -> None:
    with Llama(gguf, 3, 128) as embedded:
        expected = embedded.answers(prompts, 8, SCHEMA, "test")
    with Llama(gguf, 3, 128) as elsewhere, Llama(gguf, 3, 128, elsewhere._address) as asking:
        assert asking._server is None
        assert asking.answers(prompts, 8, SCHEMA, "test") == expected


def test_a_server_with_another_file_is_refused_by_both_names(gguf: Path, tmp_path: Path) -> None:
    with (
        Llama(gguf, 1, 128) as elsewhere,
        pytest.raises(SystemExit, match=r"has tiny\.gguf loaded, to be measured is other\.gguf\. Start it"),
        Llama(tmp_path / "other.gguf", 1, 128, elsewhere._address),
    ):
        pass


def test_a_server_whose_slots_are_too_small_is_refused_with_both_numbers(gguf: Path) -> None:
    with (
        Llama(gguf, 1, 256) as elsewhere,
        pytest.raises(SystemExit, match=r"holds 256 tokens a slot, .* take 300 together.* -np 2 -c 600 "),
        Llama(gguf, 2, 300, elsewhere._address),
    ):
        pass


def test_an_endpoint_where_nothing_or_something_else_answers_is_refused_with_the_command_to_run(gguf: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    wanted = rf"no llama-server answers at http://127\.0\.0\.1:{port} .*llama-server -m .*tiny\.gguf -np 1"
    with pytest.raises(SystemExit, match=wanted), Llama(gguf, 1, 64, f"http://127.0.0.1:{port}"):
        pass
    server = HTTPServer(("127.0.0.1", port), BaseHTTPRequestHandler)  # answers 501 to everything
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(SystemExit, match=wanted), Llama(gguf, 1, 64, f"http://127.0.0.1:{port}"):
        pass
    server.shutdown()
