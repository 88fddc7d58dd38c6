"""baseline: the untouched base, quantized and measured for real."""

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from stages import baseline, evaluate
from stages.shared.base_model import resolve_base
from stages.shared.chatml import CHATML_TEMPLATE
from stages.shared.params import load_params
from tests.test_evaluate import made as made  # a fixture
from tests.test_evaluate import project as project  # a fixture


def test_the_base_is_measured_as_the_tuned_model_is_and_its_file_removed(project: Path) -> None:
    baseline.main()
    evaluate.main()
    base = json.loads((project / "reports/baseline.json").read_text(encoding="utf-8"))
    tuned = json.loads((project / "reports/evaluate.json").read_text(encoding="utf-8"))
    assert list(base) == ["n", "q8_0"]
    # The file in models/gguf was made from this very base: only the clock may tell them apart.
    for report in (base, tuned):
        for metrics in report["q8_0"].values():
            del metrics["tokens_per_second"]
    assert base["q8_0"] == tuned["q8_0"]
    for mode in ("unconstrained", "constrained"):
        name = f"answers-q8_0-{mode}.jsonl"
        assert (project / "reports/baseline" / name).read_bytes() == (project / "reports/evaluate" / name).read_bytes()
    assert sorted(path.name for path in (project / "models").iterdir()) == ["base-tiny", "gguf"]


def test_the_base_is_asked_with_our_template_and_left_as_it_was(project: Path, tmp_path: Path) -> None:
    folder = project / "models/base-tiny"
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text("{{ 'You are Qwen' }}")
    base = resolve_base(str(folder), None, "base_model.merge")
    knobs = load_params().quantize_gguf.model_copy(update={"imatrix": False})
    file = baseline.write_base(base, "q4_k_m", knobs, tmp_path / "scratch")
    assert GGUFReader(file).get_field("tokenizer.chat_template").contents() == CHATML_TEMPLATE  # type: ignore[union-attr]
    assert (folder / "chat_template.jinja").read_text() == "{{ 'You are Qwen' }}"


def test_what_a_killed_run_left_is_removed_and_a_failing_one_leaves_nothing(project: Path) -> None:
    left = project / "models/baseline.partial/base"
    left.mkdir(parents=True)
    (left / "old.gguf").write_bytes(b"half")
    rows = project / "data/chatml/eval.jsonl"
    text = rows.read_text(encoding="utf-8")
    rows.unlink()
    rows.write_text(text.replace('"prompt_ids": [1', '"prompt_ids": [2', 1), encoding="utf-8")
    with pytest.raises(SystemExit, match="EPIC-105: token 0 of the prompt"):
        baseline.main()
    assert not (project / "models/baseline.partial").exists()
    assert not (project / "reports").exists()
