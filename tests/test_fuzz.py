"""Fuzz: whatever stands in a file, its reader takes it or refuses it in lines, in time, and leaves no half output.

PM_SENIOR_FUZZ=150 tries that many times as many inputs as a plain run; `make fuzz` does.
"""

import copy
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages import validate
from stages.shared.atomic import atomic_folder
from stages.shared.epic_schema import is_row
from stages.shared.gguf_writer import read_model, write_ggufs
from stages.shared.jsonl import Problem
from stages.shared.modelfile import lengths, modelfile
from stages.shared.params import Params, load_params
from tests.shared.test_gguf_writer import ABOUT
from tests.small_repository import ROOT
from tests.tiny_model import write_model

TIMES = int(os.environ.get("PM_SENIOR_FUZZ", "1"))
TRIED: "Counter[str]" = Counter()
CPU_SECONDS, SECONDS = 30, 300  # far more than any input takes: a loop ends at the one, a wait at the other
TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[FIN]"]


def fuzz(inputs: int) -> Any:
    """Hypothesis' settings for as many inputs in a plain run."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    # A plain run tries the same inputs every time: a new find belongs to `make fuzz`, not into somebody else's change.
    settled = TIMES == 1
    return settings(
        max_examples=inputs * TIMES, deadline=None, suppress_health_check=slow, database=None, derandomize=settled
    )


@contextmanager
def in_time(what: str) -> Iterator[None]:
    """Count an input, and let it fail if it takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"{what}: it hangs")

    TRIED[what] += 1
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, CPU_SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, SECONDS))
    before = [signal.signal(number, stop) for number, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@pytest.fixture(scope="module", autouse=True)
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder to work in; says at the end how much was tried."""
    root = tmp_path_factory.mktemp("fuzz")
    (root / "data").mkdir()
    (root / "base").mkdir()
    shutil.copy(ROOT / "data/epic.schema.json", root / "data")
    tokens = [{"content": token, "special": True} for token in TOKENS]
    (root / "base/tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    before = Path.cwd()
    os.chdir(root)
    yield root
    os.chdir(before)
    print(f"\nfuzz: {TRIED.total()} inputs: {dict(TRIED)}")


LINES = [(ROOT / "data/epics_eval.jsonl").read_bytes().split(b"\n")[0]]
LINES.append(
    b'{"input":{"context":"Uno dos","requerimientos":["Tres"]},'
    b'"output":{"epic_id":"EPIC-001","title":"T","acceptance_criteria":["C"]}}'
)
PIECES = st.sampled_from(
    [
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\r",
        b"<|im_end|>",
        b"\\u0000",
        b"NaN",
        b"1e999",
        b"-",
        b"\\ud800",
        b"9" * 5000,
        b"[" * 300,
        b'"input":{},',
        "\u200b".encode(),
        b"null",
        b"true",
    ]
)
CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), PIECES | st.binary(max_size=4)), min_size=1, max_size=4)


def with_cuts(content: bytes, cuts: list[tuple[float, int, bytes]]) -> bytes:
    """Some bytes of a content replaced by others."""
    for place, length, piece in cuts:
        at = int(place * len(content))
        content = content[:at] + piece + content[at + length :]
    return content


@fuzz(700)
@given(line=st.binary(max_size=60) | st.builds(with_cuts, st.sampled_from(LINES), CUTS))
def test_any_bytes_are_a_row_or_problems_with_their_place(line: bytes) -> None:
    line = line.replace(b"\n", b"")
    with in_time("bytes of a line"):
        found = validate.examine_line("f.jsonl", 7, line, TOKENS)
        quick = validate.plainly_fine(line, ["[FIN]"])
    if isinstance(found, dict):
        assert is_row(found)
    else:
        assert found and all(isinstance(each, Problem) for each in found)
        for each in found:
            assert str(each).startswith("f.jsonl:7: ") and "\n" not in str(each)
            str(each).encode()
    assert quick is None or quick == found


WORDS = st.sampled_from(
    ["", " ", "\u200b", "ñ", "x" * 3000, "<|im_end|>", "[FIN]", "\ud800", "\0", "EPIC-001", "{{ x }}"]
)
NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308])
JUNK = (
    st.none() | st.booleans() | NUMBERS | WORDS | st.sampled_from([[], {}, [[]], [None], {"a": 1}, ["a", "a"]])
).map(copy.deepcopy)  # what is drawn is changed further on


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key in a JSON value."""
    found, waiting = [], [value]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else []
        found += [(item, key) for key in keys]
        waiting += [item[key] for key in keys]
    return found


@st.composite
def changed(draw: Any, value: Any) -> Any:
    """A JSON value with up to three of its parts removed, replaced, renamed, doubled or put elsewhere."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        spots = places(value)
        if not spots:
            break
        container, key = spots[draw(st.integers(0, len(spots) - 1))]
        action = draw(st.sampled_from(["remove", "replace", "rename", "copy", "add"]))
        if action == "remove":
            del container[key]
        elif action == "replace":
            container[key] = draw(JUNK)
        elif action == "copy":
            other, name = spots[draw(st.integers(0, len(spots) - 1))]
            container[key] = copy.deepcopy(other[name])
        elif isinstance(container, list):
            container.insert(key, draw(JUNK))
        elif action == "rename":
            container[draw(WORDS.filter(lambda word: "\ud800" not in word)) or f"{key}s"] = container.pop(key)
        else:
            container[f"{key}x"] = draw(JUNK)
    return value


def rows(first: int, count: int) -> list[Any]:
    """Sound rows with no word in common."""
    return [
        {
            "input": {"context": f"a{n} b{n} c{n} d{n}", "requerimientos": [f"e{n} f{n}"]},
            "output": {"epic_id": f"EPIC-{n:03d}", "title": f"T{n}", "acceptance_criteria": [f"C{n}"]},
        }
        for n in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(ROOT / "params.yaml")
    base = loaded.base_model.model_copy(update={"train": "base", "train_revision": None})
    return loaded.model_copy(update={"base_model": base})


@fuzz(60)
@given(train=changed(rows(1, 3)), held_out=st.just(rows(4, 1)) | changed(rows(4, 1)), cuts=st.just([]) | CUTS)
def test_validate_passes_sound_rows_on_or_names_every_problem_and_writes_nothing(
    params: Params, train: list[Any], held_out: list[Any], cuts: list[tuple[float, int, bytes]]
) -> None:
    sources = dict(zip(validate.SOURCES.values(), (train, held_out), strict=True))
    for file, values in sources.items():
        file.write_bytes(with_cuts(b"".join(json.dumps(row).encode() + b"\n" for row in values), cuts))
    with in_time("examples"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "load_params", lambda: params)
        try:
            validate.main()
        except SystemExit as refusal:
            *problems, last = str(refusal).split("\n")
            assert last.startswith(f"validate: {len(problems)} problem") and last.endswith("; nothing was written.")
            assert problems and all(line.startswith("data/epics") for line in problems)
            assert not validate.VALIDATED.exists() and not validate.METRICS.exists()
        else:
            for split, file in validate.SOURCES.items():
                assert (validate.VALIDATED / f"{split}.jsonl").read_bytes() == file.read_bytes()
                assert all(is_row(json.loads(line)) for line in file.read_bytes().splitlines())
            json.loads(validate.METRICS.read_text())
    assert not list(Path("data").glob(".*"))
    shutil.rmtree(validate.VALIDATED, ignore_errors=True)
    validate.METRICS.unlink(missing_ok=True)


PARAMS = [YAML(typ="safe").load(file) for file in (ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml")))]
TEXTS = [file.read_bytes() for file in (ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml")))]
YAML_PIECES = st.sampled_from(
    [
        b":",
        b": ",
        b"\n",
        b"\n  ",
        b"- ",
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"<<: *a",
        b"'",
        b'"',
        b"|\n",
        b"{",
        b"]",
        b"%YAML 9.9\n",
        b"---\n",
        b"\t",
        b"\x01",
        b"\xff",
        b"\xef\xbb\xbf",
        b"? ",
        b"0x1F",
        b".inf",
        b"2026-01-01",
        b"  lora:\n",
    ]
)
YAML_CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), YAML_PIECES), min_size=1, max_size=3)


@fuzz(50)
@given(
    content=st.sampled_from(PARAMS).flatmap(changed).map(lambda value: json.dumps(value).encode())
    | st.builds(with_cuts, st.sampled_from(TEXTS), YAML_CUTS)
)
def test_any_params_load_or_every_problem_is_a_line_with_its_place(content: bytes) -> None:
    file = Path("params.yaml")
    file.write_bytes(content)
    with in_time("params"):
        try:
            load_params()
        except SystemExit as refusal:
            lines = str(refusal).split("\n")
            assert lines and all(line.startswith("params.yaml:") and line.endswith(".") for line in lines), lines


def written_system(text: str) -> str:
    """The system prompt as Ollama's parser reads it: https://github.com/ollama/ollama/blob/main/parser/parser.go."""
    waiting, found = "", []
    for line in text.splitlines(keepends=True):
        waiting += line
        value = waiting.partition(" ")[2].strip()
        if value.startswith('"""') and not (len(value) >= 6 and value.endswith('"""')):
            continue
        if waiting.startswith("SYSTEM "):
            found.append(value[3:-3])
        assert waiting.split(" ")[0].strip() in ("", "FROM", "TEMPLATE", "SYSTEM", "PARAMETER"), waiting
        waiting = ""
    assert not waiting and len(found) == 1
    return found[0]


@fuzz(80)
@given(
    system=st.lists(
        st.sampled_from(
            ['"', '""', '"""', "\n", " ", "\r", "SYSTEM x\n", "{{ .System }}", "\\", "ñ", "PARAMETER num_ctx 1\n"]
        )
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        min_size=1,
        max_size=6,
    ).map("".join),
    numbers=st.tuples(*[st.integers(1, 2**20)] * 3),
)
def test_a_modelfile_gives_its_system_prompt_back_or_the_prompt_is_refused(
    system: str, numbers: tuple[int, int, int]
) -> None:
    with in_time("Modelfile"):
        try:
            predict, window = lengths(*numbers)
            text = modelfile("a.gguf", system, predict, window)
        except SystemExit as refusal:
            assert "\n" not in str(refusal)
            return
    assert 0 < predict < window <= numbers[2]
    assert written_system(text) == system


@pytest.fixture(scope="module")
def model(workshop: Path) -> Path:
    return write_model(workshop / "model", num_hidden_layers=1, hidden_size=32, intermediate_size=32, head_dim=8)


@fuzz(50)
@given(data=st.data())
def test_any_model_folder_becomes_a_whole_gguf_or_is_refused_in_one_line(model: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]))
    file = model / name
    untouched = file.read_bytes()
    if name.endswith(".json") and data.draw(st.booleans()):
        content = json.loads(untouched)
        if name == "tokenizer.json":  # its vocabulary is most of it, and hides the rest
            content["model"]["vocab"] = dict(list(content["model"]["vocab"].items())[:300])
            content["model"]["merges"] = content["model"]["merges"][:5]
        file.write_text(json.dumps(data.draw(changed(content))))
    else:
        file.write_bytes(with_cuts(untouched, data.draw(CUTS)))
    target = Path("gguf")
    try:
        with in_time("model folder"), atomic_folder(target) as folder:
            read = read_model(model)
            write_ggufs(read, {"q4_0": folder / "a.gguf"}, ABOUT)
    except SystemExit as refusal:
        assert str(refusal).startswith(str(model)) and "\n" not in str(refusal), refusal
        assert not target.exists()
    else:
        assert {tensor.name for tensor in GGUFReader(target / "a.gguf").tensors} == read.tensors.keys()
        shutil.rmtree(target)
    finally:
        file.write_bytes(untouched)
    assert not list(Path().glob(".*.partial"))
