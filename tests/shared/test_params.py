"""params: the files of this repository load, and a mistyped knob is named with its remedy."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from stages.shared.params import load_params

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def change(dotted: str, line: str) -> int:
    """Put a line in the place of a knob in params.yaml; its number."""
    section, key = dotted.split(".")
    file = Path("params.yaml")
    lines = file.read_text(encoding="utf-8").split("\n")
    start = next(n for n, each in enumerate(lines) if each.startswith(f"{section}:"))
    number = next(n for n in range(start, len(lines)) if lines[n].startswith(f"  {key}:"))
    lines[number] = line
    file.write_text("\n".join(lines), encoding="utf-8")
    return number + 1


def refusal() -> list[str]:
    with pytest.raises(SystemExit) as stop:
        load_params()
    return str(stop.value).split("\n")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_params_and_every_preset_load(file: Path) -> None:
    params = load_params(file)
    assert params.gate.method in params.evaluate.methods
    assert params.base_model.train in file.read_text(encoding="utf-8")


def test_there_are_presets_to_load() -> None:
    assert len(FILES) > 1


@pytest.mark.parametrize(
    ("knob", "value", "shown", "wanted"),
    [
        ("lora.r", '"8"', "'8'", "a valid integer"),
        ("lora.r", "8.0", "8.0", "a valid integer"),
        ("lora.r", "1e1", "10.0", "a valid integer"),
        ("lora.r", "true", "True", "a valid integer"),
        ("lora.r", "0", "0", "greater than or equal to 1"),
        ("lora.r", "1025", "1025", "less than or equal to 1024"),
        ("lora.dropout", "1.0", "1.0", "less than 1"),
        ("train.learning_rate", '"2e-05"', "'2e-05'", "a valid number"),
        ("train.learning_rate", "0", "0", "greater than 0"),
        ("train.learning_rate", "1", "1", "less than 1"),
        ("train.weight_decay", "-0.1", "-0.1", "greater than or equal to 0"),
        ("train.seed", str(2**32), str(2**32), "less than 4294967296"),
        ("train.load_in_4bit", "yes", "'yes'", "a valid boolean"),
        ("train.load_in_4bit", "1", "1", "a valid boolean"),
        ("train.optimizer", "adam", "'adam'", "'adamw_torch', 'adamw_8bit' or 'paged_adamw_8bit'"),
        ("validate.max_similarity", "0", "0", "greater than 0"),
        ("validate.shingle_words", "21", "21", "less than or equal to 20"),
        ("base_model.train", "null", "None", "a valid string"),
        ("base_model.train_revision", "12345678", "12345678", "a valid string"),
    ],
)
def test_a_wrong_type_or_range_is_said_with_what_should_stand_there(
    knob: str, value: str, shown: str, wanted: str
) -> None:
    change(knob, f"  {knob.split('.')[1]}: {value}")
    assert refusal() == [f"params.yaml: {knob}: is {shown}, should be {wanted}."]


@pytest.mark.parametrize(("written", "value"), [("2e-05", 2e-05), ("1e-5", 1e-5), ("2.0E-4", 2e-4), ("0.5", 0.5)])
def test_a_float_may_be_written_with_an_exponent_and_no_point(written: str, value: float) -> None:
    change("train.learning_rate", f"  learning_rate: {written}")
    assert load_params().train.learning_rate == value


def test_an_integer_may_stand_for_a_float_but_is_one_afterwards() -> None:
    change("train.weight_decay", "  weight_decay: 0")
    assert isinstance(load_params().train.weight_decay, float)


def test_an_unknown_knob_is_refused_with_its_closest_match_and_the_valid_ones() -> None:
    change("lora.dropout", "  dropuot: 0.0")
    missing, unknown = sorted(refusal())
    assert missing == "params.yaml: lora.dropout: missing. Add it; presets/ and the file in Git show its place."
    valid = "Valid here: r, alpha, dropout, target_modules."
    assert unknown == f"params.yaml: lora.dropuot: no such knob. Did you mean dropout? {valid}"


def test_an_unknown_knob_that_resembles_none_lists_the_valid_ones_alone() -> None:
    change("lora.r", "  r: 8\n  zzz: 1")
    assert refusal() == ["params.yaml: lora.zzz: no such knob. Valid here: r, alpha, dropout, target_modules."]


def test_an_unknown_section_is_matched_by_the_name_in_the_file(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text + "\nvalidat: {}\n", encoding="utf-8")
    (line,) = refusal()
    assert line.startswith(
        "params.yaml: validat: no such knob. Did you mean validate? Valid here: base_model, validate, "
    )


def test_a_missing_section_is_named(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(re.sub(r"(?m)^merge:\n(?:  .*\n)+", "", text), encoding="utf-8")
    assert refusal() == ["params.yaml: merge: missing. Add it; presets/ and the file in Git show its place."]


def test_every_problem_of_the_file_is_said_at_once() -> None:
    change("lora.r", "  r: 0")
    change("train.epochs", "  epochs: 1.5")
    change("merge.dtype", "  dtype: int8")
    assert [line.split(": ")[1] for line in refusal()] == ["lora.r", "train.epochs", "merge.dtype"]


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    number = change("lora.alpha", "  r: 8")
    assert refusal() == [f"params.yaml:{number}: lora.r: stands twice. Keep one of the two."]


def test_every_section_and_knob_that_stands_twice_is_refused_by_its_dotted_name(project: Path) -> None:
    lines = (project / "params.yaml").read_text(encoding="utf-8").split("\n")
    section = ""
    for number, line in enumerate(lines):
        found = re.match(r"(  )?(\w+):", line)
        if not found or "system_prompt" in line:
            continue
        indent, key = found.groups()
        section = section if indent else key
        if section not in ("merge", "gate", "lora"):
            continue
        twice = (
            [*lines[: number + 1], f"{indent or ''}{key}: {{}}", *lines[number + 1 :]]
            if indent
            else [*lines, f"{key}: {{}}"]
        )
        (project / "params.yaml").write_text("\n".join(twice), encoding="utf-8")
        name = f"{section}.{key}" if indent else key
        place = number + 2 if indent else len(lines) + 1
        assert refusal() == [f"params.yaml:{place}: {name}: stands twice. Keep one of the two."]
    (project / "params.yaml").write_text("gate: {unconstrained: {json_valid: 1, json_valid: 2}}", encoding="utf-8")
    assert refusal() == ["params.yaml:1: gate.unconstrained.json_valid: stands twice. Keep one of the two."]


KNOBS = {
    section: list(values) for section, values in YAML(typ="safe").load(ROOT / "params.yaml").items()
}  # as they stand in the file


def test_every_knob_that_is_mistyped_missing_or_of_a_wrong_type_is_named_with_its_closest_valid_one(
    project: Path,
) -> None:
    """One letter doubled in each key at once: every one is missing under its name and unknown under the other."""
    file = project / "params.yaml"
    file.write_text(json.dumps({s: {key[0] + key: 1 for key in keys} for s, keys in KNOBS.items()}), encoding="utf-8")
    said = refusal()
    for section, keys in KNOBS.items():
        for key in keys:
            assert (
                f"params.yaml: {section}.{key}: missing. Add it; presets/ and the file in Git show its place." in said
            )
            start = f"params.yaml: {section}.{key[0]}{key}: no such knob. Did you mean {key}? Valid here: {keys[0]}, "
            assert any(line.startswith(start.removesuffix(", ")) for line in said), start
    assert len(said) == 2 * sum(map(len, KNOBS.values()))
    file.write_text(json.dumps({s: {key_0: [{}] for key_0 in keys} for s, keys in KNOBS.items()}), encoding="utf-8")
    said = refusal()
    for section, keys in KNOBS.items():
        for key in keys:
            assert any(
                re.match(rf"params\.yaml: {section}\.{key}(\.0)?: is .+, should be .+\.$", line) for line in said
            ), key
    file.write_text("{}", encoding="utf-8")
    assert [line.split(": ")[1] for line in refusal()] == list(KNOBS)


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(project: Path) -> None:
    (project / "params.yaml").write_bytes(b"a: \xf1")
    assert refusal() == ["params.yaml: byte 3 is not UTF-8. Save the file as UTF-8."]


@pytest.mark.parametrize(
    "text", ["a: 1\nb: [1, 2\nc: 3\n", "a: 1\n\tb: 2\n", "a: 1\n  b: 2\n", "a: 1\nb: *no\n", "a: 1\n%\n"]
)
def test_what_is_not_yaml_is_refused_with_its_line(project: Path, text: str) -> None:
    (project / "params.yaml").write_text(text, encoding="utf-8")
    (line,) = refusal()
    assert re.match(r"params\.yaml:[23]: not YAML: .+\. Mend this line\.$", line)


def test_a_control_character_is_refused_with_its_line(project: Path) -> None:
    (project / "params.yaml").write_text("a: 1\nb: \x01\n", encoding="utf-8")
    (line,) = refusal()
    assert re.match(r"params\.yaml:2: not YAML: .+\. Mend this line\.$", line)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "7\n"])
def test_a_file_without_sections_is_refused(project: Path, text: str) -> None:
    (project / "params.yaml").write_text(text, encoding="utf-8")
    assert refusal() == ["params.yaml: holds no sections. Restore it from Git."]


def test_a_missing_file_is_refused_with_where_to_run(project: Path) -> None:
    (project / "params.yaml").unlink()
    assert refusal() == ["params.yaml: not found. Run from the repository's root."]


def test_a_method_that_is_measured_must_be_written() -> None:
    change("quantize_gguf.methods", "  methods: [q8_0]")
    change("evaluate.methods", "  methods: [q8_0, q4_0]")
    change("gate.method", "  method: q8_0")
    fact = "evaluate.methods: q4_0 is not in quantize_gguf.methods. Add it there or remove it here."
    assert refusal() == [f"params.yaml: {fact}"]


def test_a_method_that_is_gated_must_be_measured() -> None:
    change("quantize_gguf.methods", "  methods: [q8_0, q4_0]")
    change("evaluate.methods", "  methods: [q8_0]")
    change("gate.method", "  method: q4_0")
    fact = "gate.method: q4_0 is not in evaluate.methods. Add it there or remove it here."
    assert refusal() == [f"params.yaml: {fact}"]


def test_a_method_that_is_none_is_refused_with_its_place() -> None:
    change("evaluate.methods", "  methods: [q4_k_m, q9]")
    (line,) = refusal()
    assert line.startswith("params.yaml: evaluate.methods.1: is 'q9', should be 'f16', ")


def test_loaded_params_cannot_be_changed() -> None:
    params = load_params()
    with pytest.raises(ValidationError, match="frozen"):
        params.lora.r = 4  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        params.lora = params.lora  # type: ignore[misc]


def test_a_base_that_was_not_quantized_cannot_be_dequantized() -> None:
    change("merge.base", "  base: dequantized")
    assert refusal() == ["params.yaml: merge.base: is dequantized, but train.load_in_4bit is false. Use original."]
