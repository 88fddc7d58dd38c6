"""What a GGUF says of itself, and `make verify`, on the files of a real run."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from stages import report
from stages.shared.checksums import write_sums
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.provenance import git_state, read_provenance
from tests.small_repository import GGUF, commit, git_identity, run
from tests.tiny_model import write_model

Clone = Callable[[Path], Path]


def verify(folder: Path, file: str = GGUF, fails: bool = False) -> str:
    return run("python", "-m", "tools.verify", file, cwd=folder, fails=fails)


def test_a_gguf_carries_the_hashes_params_versions_and_commit_that_made_it(finished_once: Path) -> None:
    about = read_provenance(finished_once / GGUF)
    for name in ("data/epics.jsonl", "data/epics_eval.jsonl"):
        assert about["data"][name] == hashlib.sha256((finished_once / name).read_bytes()).hexdigest()
    params = YAML(typ="safe").load(finished_once / "params.yaml")
    for section in ("format_chatml", "merge", "quantize_gguf"):
        assert about["params"][section].items() >= params[section].items()
    assert about["training"]["lora"] == params["lora"]
    assert about["training"]["train"]["learning_rate"] == params["train"]["learning_rate"]
    assert about["training"]["merge_base"]["revision"] == params["base_model"]["merge_revision"]
    assert {"python", "torch", "gguf"} <= about["versions"].keys()
    first = run("git", "rev-list", "--max-parents=0", "HEAD", cwd=finished_once).strip()
    assert (about["git.commit"], about["git.dirty"]) == (first, False)


def test_the_commit_is_the_one_that_changed_an_input_not_the_one_that_recorded_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() == ("none", True)
    run("git", "init", "--quiet", cwd=tmp_path)
    git_identity(tmp_path)
    Path("params.yaml").write_text("lora: {r: 8}\n")
    commit(tmp_path, "Inputs")
    inputs = run("git", "rev-parse", "HEAD", cwd=tmp_path).strip()
    Path("dvc.lock").write_text("stages: {}\n")
    assert git_state() == (inputs, False)
    commit(tmp_path, "Run")
    assert git_state() == (inputs, False)
    Path("params.yaml").write_text("lora: {r: 4}\n")
    assert git_state() == (inputs, True)
    commit(tmp_path, "Other inputs")
    assert git_state() == (run("git", "rev-parse", "HEAD", cwd=tmp_path).strip(), False)
    Path("stages").mkdir()
    Path("stages/new.py").write_text("")
    assert git_state()[1], "a file that Git does not have yet may have made the model"


def test_verify_says_on_another_machine_what_a_file_is_and_how_it_scored(finished_once: Path, clone: Clone) -> None:
    other = clone(finished_once)
    run("dvc", "remote", "add", "--local", "--default", "there", str(finished_once / ".dvc/cache"), cwd=other)
    run("dvc", "pull", "quantize_gguf", cwd=other)
    lines = dict(line.split(maxsplit=1) for line in verify(other).replace("stop token", "stop").splitlines())
    assert lines["intact"].startswith("yes: MD5 ")
    assert lines["data"].count("(as here)") == 2
    assert "LoRA r 16, alpha 32, 1 epochs" in lines["trained"]
    assert len(lines["commit"]) == 12
    assert all(lines[name].startswith("right: ") for name in ("template", "stop", "tokenizer"))
    report = json.loads((other / "reports/evaluate.json").read_text())
    coverage = report["q4_k_m"]["constrained"]["requirement_coverage"]
    assert lines["scores"].startswith("2 held-out Epics: unconstrained schema_valid ")
    assert lines["scores"].endswith(f"constrained schema_valid 0, requirement_coverage {coverage:g}")


def test_verify_refuses_a_file_damaged_in_place_and_its_remedy_works(finished: Path, finished_once: Path) -> None:
    """Damaged through a hard link: the cache's copy is damaged with it, which DVC does not see."""
    run("dvc", "checkout", "--relink", cwd=finished)
    file = finished / GGUF
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.seek(-100, 2)
        content.write(b"damage")
    file.chmod(0o444)
    output = verify(finished, fails=True)
    assert "dvc.lock records" in output and "damaged" in output and len(output.splitlines()) == 1
    run("dvc", "remote", "add", "--local", "--default", "there", str(finished_once / ".dvc/cache"), cwd=finished)
    remedy = output.split("`")[1]
    assert remedy.startswith(f"rm -f {GGUF} .dvc/cache/") and remedy.endswith("&& dvc pull quantize_gguf")
    run("bash", "-c", remedy, cwd=finished)
    assert "intact      yes" in verify(finished)


@pytest.mark.parametrize(
    ("file", "message"),
    [("models/gguf/other.gguf", "not found"), ("models/base-tiny/model.safetensors", "no file of that name")],
)
def test_verify_refuses_a_file_that_this_commit_did_not_ship(finished_once: Path, file: str, message: str) -> None:
    output = verify(finished_once, file, fails=True)
    assert message in output and len(output.splitlines()) == 1


def test_a_gguf_of_another_program_is_refused(tmp_path: Path) -> None:
    about = About("Tiny", "For tests.", "apache-2.0", ["es"], [], "a/b", "0123", {})
    file = tmp_path / "other.gguf"
    write_ggufs(read_model(write_model(tmp_path / "model")), {"f16": file}, about)
    with pytest.raises(SystemExit, match=r"other\.gguf: holds no pm_senior\.training: another program wrote it"):
        read_provenance(file)


def test_verify_tells_a_template_and_a_tokenizer_that_training_did_not_use(finished: Path) -> None:
    """Another template and one merge less, requantized: whole for DVC, wrong for the model."""
    (finished / "models/merged/chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    file = finished / "models/merged/tokenizer.json"
    tokenizer = json.loads(file.read_text())
    del tokenizer["model"]["merges"][:200]
    file.write_text(json.dumps(tokenizer))
    write_sums(file.parent)
    run("python", "-m", "stages.quantize_gguf", cwd=finished)
    run("dvc", "commit", "--force", "quantize_gguf", cwd=finished)
    output = verify(finished, fails=True)
    assert "WRONG: llama.cpp renders 8 of 8 prompts otherwise" in output
    assert "tokenizer   WRONG" in output
    assert "not measured since it was written" in output


def test_the_card_with_the_scores_follows_the_hubs_conventions(finished_once: Path) -> None:
    card = ModelCard((finished_once / "reports/MODEL_CARD.md").read_text()).data
    assert (card.license, card.language, card.pipeline_tag) == ("apache-2.0", "es", "text-generation")
    report = json.loads((finished_once / "reports/evaluate.json").read_text())["q4_k_m"]
    measured = {result.metric_name: result.metric_value for result in card.eval_results}
    assert measured["schema_valid, free"] == report["unconstrained"]["schema_valid"]
    assert measured["criteria_chrf, held to the schema"] == report["constrained"]["criteria_chrf"]
    assert card.base_model is None, "a folder is no repo of the Hub"


def test_the_summary_is_what_the_stages_measured(finished_once: Path) -> None:
    reports = finished_once / "reports"
    summary = json.loads((reports / "summary.json").read_text())
    trained = json.loads((reports / "train/metrics.json").read_text())
    assert summary["train_loss"] == round(trained["train"]["loss"], 4)
    assert summary["eval_loss"] == round(trained["eval"]["loss"], 4), "one epoch"
    size = (finished_once / GGUF).stat().st_size
    assert summary["size_mib"] == round(size / 2**20, 2)
    rows = (reports / "size_quality.tsv").read_text().splitlines()
    assert rows[1].split("\t")[:2] == ["q4_k_m", str(summary["size_mib"])]


def test_the_eval_loss_is_that_of_the_epoch_that_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report.EVAL_LOSS.parent.mkdir(parents=True)
    report.EVAL_LOSS.write_text("step\tloss\n10\t2.5\n20\t2.25\n30\t2.75\n")
    assert (report.eval_loss(keep_best=True), report.eval_loss(keep_best=False)) == (2.25, 2.75)


def test_make_verify_reads_the_file_that_it_is_given() -> None:
    rule = subprocess.run(["make", "-n", "verify", "GGUF=some.gguf"], capture_output=True, text=True, check=True)
    assert "python -m tools.verify some.gguf" in rule.stdout
