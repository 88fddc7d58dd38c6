"""evaluate: a real GGUF of a tiny random model, real rows, the real llama.cpp."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from stages import evaluate
from stages.shared import measure
from stages.shared.answer_page import answer_page
from stages.shared.chatml import Encoder, as_json, prompt_text, user_message
from stages.shared.checksums import write_sums
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.llama_runtime import Answer
from stages.shared.measure import MODES, criteria_chrf, read_rows, record, with_intervals
from tests.servers import free_port, llama_server
from tests.small_repository import run
from tests.tiny_model import write_model

ROOT = Path(__file__).parents[1]
SYSTEM = "Escribe una Epic."


def write_rows(chatml: Path, encoder: Encoder) -> None:
    """Two rows for training and three held out, with contexts cut short: the tiny model holds little."""
    chatml.mkdir(parents=True)
    for split, file, count in (("train", "epics", 2), ("eval", "epics_eval", 3)):
        lines = (ROOT / f"data/{file}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        rows = []
        for epic in map(json.loads, lines):
            brief = {"context": epic["input"]["context"][:60], "requerimientos": epic["input"]["requerimientos"][:2]}
            user = user_message(brief)
            rows.append(
                {
                    "epic_id": epic["output"]["epic_id"],
                    "prompt": prompt_text(SYSTEM, user),
                    "answer": as_json(epic["output"]),
                    "prompt_ids": encoder.prompt(SYSTEM, user),
                    "answer_ids": encoder.answer(as_json(epic["output"])),
                }
            )
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (chatml / f"{split}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a GGUF, rows and params."""
    root = tmp_path_factory.mktemp("made")
    folder = write_model(root / "models/base-tiny", max_position_embeddings=1024)
    write_rows(root / "data/chatml", Encoder(AutoTokenizer.from_pretrained(folder)))
    about = About("Tiny", "For tests.", "apache-2.0", ["es"], [], "a/b", "0123", {})
    (root / "models/gguf").mkdir()
    methods = ("q4_k_m", "q8_0")
    targets = {method: root / f"models/gguf/MiPM_Senior-{method.upper()}.gguf" for method in methods}
    write_ggufs(read_model(folder), targets, about)
    write_sums(root / "models/gguf")
    (root / "data/epic.schema.json").write_bytes((ROOT / "data/epic.schema.json").read_bytes())
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] |= {"merge": "models/base-tiny", "merge_revision": None}
    params["quantize_gguf"]["methods"] = params["evaluate"]["methods"] = list(methods)
    params["evaluate"] |= {"max_answer_tokens": 32, "parallel": 2}
    params["gate"]["method"] = "q8_0"
    yaml.dump(params, root / "params.yaml")
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, by links, for one test to change."""
    for file in (file for file in made.rglob("*") if file.is_file()):
        link = tmp_path / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.unlink()  # a link: the original stays
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_every_method_is_measured_in_both_modes_and_every_answer_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main()
    out = capsys.readouterr().out
    report = json.loads((project / "reports/evaluate.json").read_text(encoding="utf-8"))
    assert report["n"] == 3
    assert list(report) == ["n", "q4_k_m", "q8_0"]
    intervals = json.loads((project / "reports/evaluate/intervals.json").read_text(encoding="utf-8"))
    for method in ("q4_k_m", "q8_0"):
        for mode in MODES:
            metrics = report[method][mode]
            assert metrics["json_valid"] == metrics["requirement_coverage"] == 0  # from random weights
            assert metrics["tokens_per_second"] > 0
            assert intervals[method][mode]["json_valid"] == {"value": 0.0, "low": 0.0, "high": 0.5615, "n": 3}
            lines = (project / f"reports/evaluate/answers-{method}-{mode}.jsonl").read_text(encoding="utf-8")
            answers = [json.loads(line) for line in lines.splitlines()]
            assert [answer["epic_id"] for answer in answers] == ["EPIC-105", "EPIC-106", "EPIC-107"]
            assert all(answer["finished"] or answer["tokens"] == 32 for answer in answers)
            finished = sum(answer["finished"] for answer in answers)
            assert metrics["finished"] == round(finished / 3, 4)
            endless = [answer["epic_id"] for answer in answers if not answer["finished"]]
            named = f"    {len(endless)} of 3 did not finish within 32 tokens: {', '.join(endless)}"
            assert out[out.index(f"{method} {mode}: ") :].splitlines()[1] == named
            assert intervals[method][mode]["schema_valid_when_finished"]["n"] == finished
            assert all(answer["uncovered"] == answer["input"]["requerimientos"] for answer in answers)
            if mode == "constrained":
                assert all(answer["answer"].lstrip().startswith("{") for answer in answers)
    assert "q8_0 constrained: JSON 0.00, schema 0.00 [0.00, 0.56], finished " in out and ", n 3, " in out
    assert "to read: reports/evaluate/answers.html" in out
    table = (project / "reports/evaluate/scores.tsv").read_text(encoding="utf-8").splitlines()
    assert table[0] == "metric\tanswers\tvalue\tlow\thigh\tn"
    assert "json_valid\tq8_0 unconstrained\t0.0\t0.0\t0.5615\t3" in table
    assert len(table) == 1 + 2 * 2 * 6


def test_two_evaluations_of_one_file_give_the_same_answers(project: Path) -> None:
    texts = []
    for _ in range(2):
        evaluate.main()
        texts.append([file.read_bytes() for file in sorted((project / "reports/evaluate").glob("answers-*.jsonl"))])
    assert len(texts[0]) == 4
    assert texts[0] == texts[1]


def test_a_prompt_that_llama_cpp_tokenizes_differently_stops_everything_with_its_row(project: Path) -> None:
    file = project / "data/chatml/train.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    old = json.dumps(rows[1]["prompt_ids"])
    edit(file, old, json.dumps([*rows[1]["prompt_ids"][:7], 9, *rows[1]["prompt_ids"][8:]]))
    with pytest.raises(SystemExit, match=r"data/chatml/train.jsonl:2: EPIC-002: token 7 of the prompt is \[9\] in"):
        evaluate.main()
    assert not (project / "reports").exists()


def test_a_template_that_renders_another_prompt_stops_everything_with_its_row(project: Path) -> None:
    file = project / "models/gguf/MiPM_Senior-Q4_K_M.gguf"
    data = file.read_bytes()
    file.unlink()
    start = b"{{ '<|im_start|>' + message['role'] + '\\n'"
    assert start in data
    file.write_bytes(data.replace(start, start.replace(b"'\\n'", b"' ' ", 1)))
    (file.parent / "XXH128SUMS").unlink()
    write_sums(file.parent)
    with pytest.raises(SystemExit, match=r"data/chatml/train.jsonl:1: EPIC-001: the GGUF's chat template renders"):
        evaluate.main()


def test_a_prompt_that_is_no_chatml_is_refused_with_its_row(project: Path) -> None:
    edit(project / "data/chatml/eval.jsonl", "<|im_start|>system", "system")
    with pytest.raises(SystemExit, match=r"data/chatml/eval.jsonl:1: EPIC-105: its prompt is not ChatML"):
        evaluate.main()


def test_a_method_without_its_file_is_refused_by_name(project: Path) -> None:
    (project / "models/gguf/MiPM_Senior-Q8_0.gguf").unlink()
    (project / "models/gguf/XXH128SUMS").unlink()
    write_sums(project / "models/gguf")
    with pytest.raises(SystemExit, match=r"models/gguf/MiPM_Senior-Q8_0.gguf: not found"):
        evaluate.main()


def test_rows_give_back_the_messages_they_were_made_from(project: Path) -> None:
    row = read_rows(project / "data/chatml")["eval"][0]
    epic = json.loads((ROOT / "data/epics_eval.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row.system == SYSTEM
    assert row.input["requerimientos"] == epic["input"]["requerimientos"][:2]
    assert row.reference == epic["output"]


def test_a_perfect_answer_is_recorded_as_one(project: Path) -> None:
    rows = read_rows(project / "data/chatml")["eval"]
    answers = [Answer(as_json(row.reference), True, 9) for row in rows]
    records = [record(row, answer) for row, answer in zip(rows, answers, strict=True)]
    assert [each["uncovered"] for each in records] == [[], [], []]
    intervals = with_intervals([each["scores"] for each in records])
    assert {name: at["value"] for name, at in intervals.items()} == dict.fromkeys(intervals, 1.0)
    assert criteria_chrf(rows, answers) == pytest.approx(100)


def test_validity_of_finished_answers_leaves_the_unfinished_out() -> None:
    scores = [{"finished": 1.0, "schema_valid": 1.0}, {"finished": 0.0, "schema_valid": 0.0}]
    intervals = with_intervals(scores)
    assert intervals["schema_valid"] == {"value": 0.5, "low": 0.0945, "high": 0.9055, "n": 2}
    assert intervals["schema_valid_when_finished"] == {"value": 1.0, "low": 0.2065, "high": 1.0, "n": 1}


def test_an_answer_that_its_grammar_let_pass_is_held_to_the_schema_all_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "output_schema", lambda: {"enum": [{"title": "Alta"}]})
    edit(project / "params.yaml", "max_answer_tokens: 32", "max_answer_tokens: 100")
    evaluate.main()
    metrics = json.loads((project / "reports/evaluate.json").read_text(encoding="utf-8"))["q8_0"]["constrained"]
    assert (metrics["finished"], metrics["json_valid"]) == (1, 1)
    assert (metrics["schema_valid"], metrics["schema_valid_when_finished"]) == (0, 0)
    assert "did not finish" not in capsys.readouterr().out.partition("q8_0 constrained: ")[2]


class Page(HTMLParser):
    """Tags balanced, ids and texts collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(text: str, finished: bool, project: Path) -> str:
    rows = read_rows(project / "data/chatml")["eval"]
    records = [record(row, Answer(text, finished, 9)) for row in rows]
    intervals: dict[str, Any] = with_intervals([each["scores"] for each in records])
    metrics = {name: at["value"] for name, at in intervals.items()} | {"criteria_chrf": 1.0, "tokens_per_second": 2.0}
    modes = dict.fromkeys(MODES)
    return answer_page(
        "M.gguf", dict.fromkeys(modes, metrics), dict.fromkeys(modes, intervals), dict.fromkeys(modes, records)
    )


def test_the_page_is_well_formed_has_every_example_and_fetches_nothing(project: Path) -> None:
    text = page_of('{"title": "Alta", "acceptance_criteria": ["uno", {"a": null}]}', True, project)
    page = Page(text)
    assert page.ids == ["EPIC-105", "EPIC-106", "EPIC-107"]
    assert not page.tags & {"script", "link", "img", "iframe", "svg"}
    assert not page.attributes & {"src", "style", "onclick"}
    assert "url(" not in text and "@import" not in text
    assert "✗ 0/2 requirements" in text and "✓ JSON" in text


def test_what_a_model_writes_cannot_become_markup(project: Path) -> None:
    evil = '<script>alert("1")</script></details><b>'
    assert "<script" not in page_of(evil, False, project)
    assert "<script" not in page_of(json.dumps({evil: evil}), True, project)
    assert "&lt;script&gt;" in page_of(evil, False, project)
    Page(page_of(evil, False, project))


def test_half_a_surrogate_pair_in_an_answer_is_no_json_and_does_not_stop_the_page(project: Path) -> None:
    text = page_of('{"title": "\\ud800 Alta"}', True, project)
    assert "✗ JSON" in text and "\\ud800 Alta" in text
    Page(text.encode().decode())


def test_a_llama_server_started_as_the_refusal_says_is_measured(finished: Path) -> None:
    port = free_port()
    command = ("dvc", "exp", "run", "-S", f"evaluate.endpoint=http://127.0.0.1:{port}")
    refusal = run(*command, cwd=finished, fails=True)
    start = refusal.partition("Start one: llama-server ")[2].splitlines()[0]
    with llama_server(shlex.split(start), finished, port):
        output = run(*command, cwd=finished)
    assert re.findall(r"Running stage '(\w+)'", output) == ["check_params", "evaluate", "gate", "report"]
    report = json.loads((finished / "reports/evaluate.json").read_text(encoding="utf-8"))
    lines = (finished / "reports/evaluate/answers-q4_k_m-constrained.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == report["n"] == 2
    assert all(json.loads(line)["answer"].lstrip().startswith("{") for line in lines)


def test_several_files_and_one_server_are_refused(project: Path) -> None:
    edit(project / "params.yaml", "endpoint: embedded", "endpoint: http://127.0.0.1:8080")
    with pytest.raises(SystemExit, match=r"evaluate\.methods: 2 files, and the server at evaluate\.endpoint has one"):
        evaluate.main()
