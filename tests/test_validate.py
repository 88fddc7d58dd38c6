"""validate: two small files of examples, sound and not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import validate
from stages.shared import epic_schema
from stages.shared.jsonl import parts

ROOT = Path(__file__).parents[1]
TRAIN, EVAL = "data/epics.jsonl", "data/epics_eval.jsonl"
TOKENS = [("<|im_start|>", True), ("<|im_end|>", True), ("[FIN]", True), ("<tool_call>", False)]
KEEP = "Keep one value that every reader takes alike."


def example(number: int, **output: Any) -> dict[str, Any]:
    """A sound row; the words of its input stand in no other number's."""
    words = [f"palabra{number}x{n}" for n in range(15)]
    given = {"context": " ".join(words[:12]), "requerimientos": [" ".join(words[12:])]}
    epic = {"epic_id": f"EPIC-{number:03d}", "title": "Avisos en la niñez", "acceptance_criteria": ["Llega en 60 s."]}
    return {"input": given, "output": epic | output}


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def write(file: str, *rows: dict[str, Any] | bytes) -> None:
    Path(file).write_bytes(b"".join((row if isinstance(row, bytes) else dump(row)) + b"\n" for row in rows))


def refusal() -> list[str]:
    """The problems that validate ends with; makes sure that it wrote nothing."""
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}
    with pytest.raises(SystemExit) as stop:
        validate.main()
    assert {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")} == before
    *problems, last = str(stop.value).split("\n")
    assert last == f"validate: {len(problems)} problem{'s' * (len(problems) > 1)}; nothing was written."
    return problems


def in_order(file: Path) -> list[Any]:
    """The rows of a file with every object as a list of pairs, for which the order of keys counts."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, object_pairs_hook=lambda pairs: ["object", *pairs]) for line in lines]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "base").mkdir()
    shutil.copy(ROOT / "data/epic.schema.json", tmp_path / "data")
    tokens = [{"content": content, "special": special} for content, special in TOKENS]
    (tmp_path / "base/tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    params, found = re.subn(r"(?m)^  train: .*$", "  train: base", params, count=1)
    assert found == 1
    params = re.sub(r"_revision: \w+", "_revision: null", params)
    params = re.sub(r"(?m)^  shingle_words: .*$", "  shingle_words: 3", params)
    params = re.sub(r"(?m)^  max_similarity: .*$", "  max_similarity: 0.5", params)
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    write(TRAIN, example(1), example(2))
    write(EVAL, example(3))
    for cached in (epic_schema.schema, epic_schema._decides, epic_schema._explains):
        cached.cache_clear()
    return tmp_path


def test_sound_rows_are_written_as_they_were_and_counted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(TRAIN, example(1), example(2), example(4, acceptance_criteria=["Llega en 60 s.", "Llega una sola vez."]))
    validate.main()
    for file, split in ((TRAIN, "train"), (EVAL, "eval")):
        written = project / f"data/validated/{split}.jsonl"
        assert in_order(written) == in_order(project / file)
        assert "niñez".encode() in written.read_bytes()
    assert sorted(path.name for path in (project / "data/validated").iterdir()) == ["eval.jsonl", "train.jsonl"]
    assert not list(project.rglob("*.partial"))
    assert json.loads((project / "reports/validate.json").read_text()) == {
        split: {
            "examples": n,
            "mean_context_words": 12.0,
            "mean_requirements": 1.0,
            "mean_acceptance_criteria": criteria,
        }
        for split, n, criteria in (("train", 3, 1.33), ("eval", 1, 1.0))
    }
    assert capsys.readouterr().out.startswith("  3 + 1 examples, no problems")


def test_the_examples_of_this_repository_are_sound_and_written_unchanged(project: Path) -> None:
    for file in (TRAIN, EVAL):
        shutil.copy(ROOT / file, project / file)
    validate.main()
    for file, split in ((TRAIN, "train"), (EVAL, "eval")):
        assert in_order(project / f"data/validated/{split}.jsonl") == in_order(ROOT / file)


def test_the_order_of_keys_is_kept_at_every_level(project: Path) -> None:
    row = example(1)
    turned = {"output": dict(reversed(row["output"].items())), "input": dict(reversed(row["input"].items()))}
    write(TRAIN, turned)
    validate.main()
    (written,) = in_order(project / "data/validated/train.jsonl")
    assert [key for key, _ in written[1:]] == ["output", "input"]
    assert [key for key, _ in written[1][1][1:]] == ["acceptance_criteria", "title", "epic_id"]
    assert [key for key, _ in written[2][1][1:]] == ["requerimientos", "context"]


def test_a_refused_run_leaves_the_validated_files_of_the_last_one() -> None:
    validate.main()
    write(EVAL, example(3, title=""))
    assert refusal()
    assert Path("data/validated/train.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"input": }', "column 11: not JSON: Expecting value. Mend the line."),
        (b'{"input": 1} x', "column 14: not JSON: Extra data. Mend the line."),
        (b'{"input": 1, "input": 2}', f"key 'input' occurs twice in one object. {KEEP}"),
        (b'{"input": "\xf1"}', "byte 12: is not UTF-8. Save the file as UTF-8."),
        (b'{"input": NaN}', f"NaN is no JSON number. {KEEP}"),
        (b'{"input": -Infinity}', f"-Infinity is no JSON number. {KEEP}"),
        (b"", "is blank. Remove the line."),
        (b'{"input": "\\ud83d"}', "holds half of a surrogate pair. Write the character itself."),
        (b'{"input":' * 100_000, "is nested more than 200 levels deep. Flatten it."),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:30],
)  # fmt: skip
def test_a_line_that_is_not_strict_json_is_refused_with_its_place(line: bytes, problem: str) -> None:
    write(TRAIN, example(1), line, example(2))
    assert refusal() == [f"{TRAIN}:2: {problem}"]


def test_a_byte_order_mark_is_refused() -> None:
    write(TRAIN, b"\xef\xbb\xbf" + dump(example(1)))
    assert refusal() == [f"{TRAIN}:1: column 1: begins with a byte order mark. Save the file as UTF-8 without BOM."]


def test_an_empty_file_is_refused() -> None:
    write(EVAL)
    assert refusal() == [f"{EVAL}: is empty. Put one example on each line."]


def test_a_missing_file_is_refused_and_nothing_written(project: Path) -> None:
    (project / EVAL).unlink()
    with pytest.raises(SystemExit, match=rf"^{EVAL}: not found\. "):
        validate.main()
    assert not (project / "data/validated").exists()


@pytest.mark.parametrize(
    ("row", "path", "fact"),
    [
        (example(4, epic_id="EPIC-1"), "$.output.epic_id", '"EPIC-1" does not have the form '),
        (example(4, acceptance_criteria=["Va en 60 s.", "No"]),
         "$.output.acceptance_criteria[1]", "has 2 characters, should have at least 10. Say more."),
        (example(4, risks="ninguno"), "$.output.risks", "is a string, should be a list. "),
        (example(4, prioridad="Alta"), "$.output.prioridad", 'there is no such field. Rename it to "priority"'),
        ({"input": example(4)["input"]}, "$", '"output" is missing. Add it.'),
        (b"[1]", "$", "is no object. Put one JSON object on each line."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_the_schema_forbids_is_refused_with_its_json_path(row: Any, path: str, fact: str) -> None:
    write(EVAL, example(3), row)
    (problem,) = refusal()
    assert problem.startswith(f"{EVAL}:2: {path}: {fact}")


def test_an_epic_id_that_is_taken_is_refused_with_the_next_free_number_in_either_file() -> None:
    write(TRAIN, example(1), example(40), example(2, epic_id="EPIC-001"))
    write(EVAL, example(3, epic_id="EPIC-040"))
    remedy = "Give it another number, such as"
    assert refusal() == [
        f"{TRAIN}:3: $.output.epic_id: EPIC-001 is taken by {TRAIN}:1. {remedy} EPIC-041.",
        f"{EVAL}:1: $.output.epic_id: EPIC-040 is taken by {TRAIN}:2. {remedy} EPIC-042.",
    ]


def test_an_epic_id_of_thousands_of_digits_is_no_traceback() -> None:
    write(EVAL, example(3, epic_id="EPIC-" + "9" * 5000))
    try:
        validate.main()
    except SystemExit as stop:
        assert str(stop).startswith(f"{EVAL}:1: $.output.epic_id: ")
    else:
        assert Path("data/validated/eval.jsonl").exists()


def similar(number: int, likeness: int, own: int) -> dict[str, Any]:
    """A row of `own` words of its own after `likeness` that all such rows share."""
    row = example(number)
    row["input"]["context"] = " ".join(f"comun{n}" for n in range(likeness))
    row["input"]["requerimientos"] = [" ".join(f"propia{number}x{n}" for n in range(own))]
    return row


def test_the_same_input_is_refused_within_and_across_the_files() -> None:
    one, two, three = example(1), example(2), example(3)
    two["input"] = three["input"] = one["input"]
    write(TRAIN, one, two)
    write(EVAL, three)
    fact, remedy = f"has the same words as {TRAIN}:1", "Remove one of the two, or rewrite it about another case."
    assert refusal() == [
        f"{TRAIN}:2: $.input: {fact}. {remedy}",
        f"{EVAL}:1: $.input: {fact}, and what is trained on cannot be held out. {remedy}",
    ]


def test_a_nearly_equal_input_is_refused_with_both_lines_and_the_likeness() -> None:
    # 11 shared words are 9 shingles of 12; 9 of 15 in all.
    write(TRAIN, example(1), similar(2, 11, 3))
    write(EVAL, example(3), example(4), similar(5, 11, 3))
    fact = f"is nearly that of {TRAIN}:2 (similarity 0.600, at most 0.5 is allowed)"
    reason = "and what is trained on cannot be held out"
    assert refusal() == [
        f"{EVAL}:3: $.input: {fact}, {reason}. Remove one of the two, or rewrite it about another case."
    ]


def test_a_nearly_equal_input_of_the_same_file_is_refused_with_both_lines() -> None:
    write(EVAL, example(3), similar(4, 11, 3), example(5), similar(6, 11, 3))
    fact = f"is nearly that of {EVAL}:2 (similarity 0.600, at most 0.5 is allowed)"
    assert refusal() == [f"{EVAL}:4: $.input: {fact}. Remove one of the two, or rewrite it about another case."]


def test_an_input_that_is_alike_up_to_the_bar_passes(project: Path) -> None:
    # 10 shared words are 8 shingles of 12; 8 of 16 in all.
    write(TRAIN, similar(1, 10, 4), similar(2, 10, 4))
    validate.main()
    assert len(in_order(project / "data/validated/train.jsonl")) == 2


def test_an_input_that_differs_in_case_and_accents_has_the_same_words() -> None:
    loud = example(2)
    loud["input"] = {
        "context": example(1)["input"]["context"].upper(),
        "requerimientos": ["PÁLABRA1X12 palabra1x13, palabra1x14"],
    }
    write(TRAIN, example(1), loud)
    (problem,) = refusal()
    assert problem.startswith(f"{TRAIN}:2: $.input: has the same words as {TRAIN}:1. ")


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "[FIN]", "<|look_alike|>", "<||>"])
def test_a_control_token_in_a_requirement_is_refused_with_its_line(token: str) -> None:
    row = example(2)
    row["input"]["requerimientos"].append(f"Avisar{token}al equipo")
    write(TRAIN, example(1), row)
    fact = f"holds the control token {token}. Write it in other words."
    assert refusal() == [f"{TRAIN}:2: $.input.requerimientos[1]: {fact}"]


@pytest.mark.parametrize("token", ["<|im_start|>", "<|look_alike|>"])
def test_a_control_token_in_a_key_is_refused(token: str) -> None:
    write(TRAIN, example(1, **{token: "texto"}))
    held = [problem for problem in refusal() if f"holds the control token {token}. " in problem]
    assert len(held) == 1
    assert held[0].startswith(f"{TRAIN}:1: $.output")


@pytest.mark.parametrize("text", ["un <tool_call>", "<im_start>", "a || b <|", "<|a<b|>"])
def test_text_that_only_resembles_a_control_token_passes(text: str, project: Path) -> None:
    write(TRAIN, example(1, description=f"Un texto que lleva {text} dentro."))
    validate.main()
    assert len(in_order(project / "data/validated/train.jsonl")) == 1


@pytest.mark.parametrize("text", [" " * 20, "\u00a0\t\n" * 7, "\u200b\ufeff" * 10])
def test_a_blank_string_is_refused_where_the_schema_lets_it_pass(text: str) -> None:
    write(TRAIN, example(1, description=text, risks=["Que falle la red.", text]))
    remedy = "Write it or remove it."
    assert refusal() == [
        f"{TRAIN}:1: $.output.description: is blank. {remedy}",
        f"{TRAIN}:1: $.output.risks[1]: is blank. {remedy}",
    ]


def test_all_problems_of_both_files_are_said_at_once_by_file_and_line() -> None:
    copy = example(6)
    copy["input"] = example(1)["input"]
    write(TRAIN, example(1), b"{", example(2, title=5, risks=[" " * 5]), example(4, epic_id="EPIC-001"), copy, b"")
    write(
        EVAL,
        b"NaN",
        example(5, description="Veinte letras y <|x|> dentro."),
        example(7),
        example(8, epic_id="EPIC-007"),
    )
    problems = refusal()
    places = [tuple(problem.split(": ")[:2]) for problem in problems]
    assert places == [
        (f"{TRAIN}:2", "column 2"),
        (f"{TRAIN}:3", "$.output.title"),
        (f"{TRAIN}:3", "$.output.risks[0]"),
        (f"{TRAIN}:4", "$.output.epic_id"),
        (f"{TRAIN}:5", "$.input"),
        (f"{TRAIN}:6", "is blank. Remove the line."),
        (f"{EVAL}:1", f"NaN is no JSON number. {KEEP}"),
        (f"{EVAL}:2", "$.output.description"),
        (f"{EVAL}:4", "$.output.epic_id"),
    ]


def test_special_tokens_are_told_from_other_added_ones() -> None:
    assert validate.special_tokens(Path("base")) == ["<|im_start|>", "<|im_end|>", "[FIN]"]


def test_a_base_without_a_fast_tokenizer_is_refused(project: Path) -> None:
    Path("base/tokenizer.json").unlink()
    with pytest.raises(SystemExit, match=r"^base/tokenizer\.json: not found\. Name a base "):
        validate.main()
    assert not (project / "data/validated").exists()


SPECIAL = [content for content, special in TOKENS if special]
PIECES = st.sampled_from(
    [
        *r'<|im_end|> [FIN] <| |> \u003c|x|> \u005bFIN] " \ \\ \" { } [ ] , :'.split(),
        *r'\n \u00a0 \ud800 \u0000 NaN "" Alta ñ'.split(),
        *(" " * 9, '" "', '"risks":["  "],', '"title":"Otra",', "\u200b", "\u00a0", "\0", "\r", "\t"),
    ]
)


@settings(deadline=None, max_examples=1500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 3), PIECES), max_size=3), data=st.booleans())
def test_a_line_that_passes_quickly_has_no_problem_for_the_strict_path(
    edits: list[tuple[int, int, str]], data: bool
) -> None:
    line = json.dumps(example(1, risks=["Que falle."]), ensure_ascii=data)
    for place, cut, piece in edits:
        place %= len(line)
        line = line[:place] + piece + line[place + cut :]
    raw = line.encode("utf-8", "surrogatepass")
    quick = validate.plainly_fine(raw, SPECIAL)
    strict = validate.examine_line(TRAIN, 1, raw, SPECIAL)
    if quick is not None:
        assert quick == strict
    if line == json.dumps(example(1, risks=["Que falle."]), ensure_ascii=data):
        assert quick is not None


def test_a_token_with_a_quotation_mark_is_found_as_it_stands_in_json(project: Path) -> None:
    Path("base/tokenizer.json").write_text(json.dumps({"added_tokens": [{"content": 'a"\\b', "special": True}]}))
    write(TRAIN, example(1, description='Un texto que lleva a"\\b dentro.'))
    (problem,) = refusal()
    assert problem.startswith(f'{TRAIN}:1: $.output.description: holds the control token a"\\b. ')


def test_files_in_many_parts_over_processes_give_the_problems_of_one_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = [b"{", b"", example(5, title=1), example(7, epic_id="EPIC-003"), similar(8, 11, 3)]
    write(TRAIN, *map(example, range(10, 30)), example(3), *bad[:2], example(4), *bad[2:], example(9))
    write(EVAL, example(30), b"NaN", similar(31, 11, 3), similar(32, 11, 3))
    whole = refusal()
    assert len(whole) == 7
    monkeypatch.setattr(validate, "parts", lambda file: parts(file, 700))
    monkeypatch.setattr(validate, "ROWS_AT_ONCE", 3)
    assert len(list(parts(Path(TRAIN), 700))) > 5
    assert refusal() == whole


def test_a_broken_schema_is_one_line_also_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/epic.schema.json").write_text("{")
    monkeypatch.setattr(validate, "parts", lambda file: parts(file, 100))
    with pytest.raises(SystemExit, match=r"^data/epic\.schema\.json:1: not JSON: "):
        validate.main()


def test_many_rows_are_searched_by_signatures_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    copy, alike = example(6), similar(7, 40, 1)
    copy["input"] = example(1)["input"]
    write(TRAIN, example(1), similar(2, 40, 2), example(3), copy, example(4), similar(8, 40, 6))
    write(EVAL, example(5), alike)
    whole = refusal()
    assert [problem.split(": ")[0] for problem in whole] == [f"{TRAIN}:4", f"{TRAIN}:6", f"{EVAL}:2"]
    assert f" that of {TRAIN}:2 " in whole[2]
    monkeypatch.setattr(validate, "ALL_PAIRS", 0)
    monkeypatch.setattr(validate, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(validate, "closest_earlier", lambda *_: pytest.fail("every pair was compared"))
    assert refusal() == whole


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)


def test_it_runs_without_importing_torch_or_transformers() -> None:
    heavy = "[m for m in ('torch', 'transformers') if m in sys.modules]"
    done = run("-c", f"import sys; from stages import validate; validate.main(); print('imported', {heavy})")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported []"


def test_a_refused_run_exits_with_1_and_no_traceback(project: Path) -> None:
    write(TRAIN, b"[" * 100_000)
    write(EVAL, b'{"\\ud800": 1, "\\ud800": 2}')
    done = run("-m", "stages.validate")
    assert done.returncode == 1
    assert done.stdout.startswith("validate: started ") and done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    places = [line.split(": ")[0] for line in done.stderr.splitlines()]
    assert places == [f"{TRAIN}:1", f"{EVAL}:1", "validate"]
    assert not (project / "data/validated").exists()
