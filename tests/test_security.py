"""What a base may not do: run code, by pickle, by remote code or by its template; and no stage asks the network."""

import ast
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from stages.format_chatml import format_row
from stages.shared.base_model import folder_digest, resolve_base
from stages.shared.chatml import CHATML_TEMPLATE, Encoder
from stages.shared.checksums import write_sums
from stages.train_lora import last_checkpoint
from tests.small_repository import ROOT, traces_of, without_network
from tests.tiny_model import SENTENCES, write_model

STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
SOURCES = sorted((ROOT / "stages").rglob("*.py"))
# Compiled code, as trusted as the code itself: what Numba and Python keep beside it.
COMPILED = ("/numba/", "/llvmlite/")


class Payload:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.mark, "executed")


def payload(mark: Path) -> bytes:
    return pickle.dumps({"model.norm.weight": Payload(mark)})


def audit(finished_once: Path, stage: str) -> list[str]:
    """What a stage of the whole run looked up, connected to or unpickled."""
    noted = traces_of(finished_once) / f"{stage}.audit"
    assert noted.is_file(), "nothing listened"
    return noted.read_text().splitlines()


def test_the_payload_of_these_tests_works(tmp_path: Path) -> None:
    pickle.loads(payload(tmp_path / "mark"))
    assert (tmp_path / "mark").read_text() == "executed"


def test_the_whole_pipeline_runs_where_there_is_no_network(finished_once: Path, tmp_path: Path) -> None:
    if not without_network(tmp_path / "unused"):
        pytest.skip("this user may not make a network namespace")
    assert (traces_of(finished_once) / "interfaces").read_text() == "lo"
    assert (finished_once / "reports/MODEL_CARD.md").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_looks_up_no_address_and_speaks_to_this_machine_alone(finished_once: Path, stage: str) -> None:
    asked = [line for line in audit(finished_once, stage) if not line.startswith("pickle.")]
    assert [line for line in asked if "'127.0.0.1'" not in line and "'localhost'" not in line] == []
    assert bool(asked) == (stage in ("baseline", "evaluate")), "llama.cpp is asked over the loopback device"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_unpickles_nothing_but_compiled_code(finished_once: Path, stage: str) -> None:
    unpickled = [line for line in audit(finished_once, stage) if line.startswith("pickle.")]
    assert [line for line in unpickled if not any(part in line for part in COMPILED)] == []


def test_no_stage_asks_for_remote_code_or_a_pickle() -> None:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle", "weights_only"):
                assert isinstance(node.value, ast.Constant) and node.value.value is (node.arg == "weights_only"), file
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"} & set(names), file
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), file
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec"), file


def test_a_base_that_is_a_pickle_is_refused_and_its_payload_not_executed(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base")
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(payload(tmp_path / "mark"))
    with pytest.raises(SystemExit, match=r"holds no \.safetensors file\. Name a folder with 16-bit safetensors"):
        resolve_base(str(base), None, "base_model.train")
    (base / "model.safetensors").write_bytes(payload(tmp_path / "mark"))
    with pytest.raises(SystemExit, match=r"model\.safetensors: its header does not fit in the file"):
        resolve_base(str(base), None, "base_model.train")
    assert not (tmp_path / "mark").exists()


MODULE = """
from pathlib import Path
Path({mark!r}).write_text("executed")
from transformers import Qwen2Config as Evil, Qwen2ForCausalLM as EvilForCausalLM
"""
# Where a sandbox is missing, it runs a command; where it is there, it stops whoever renders it.
TEMPLATE = "{{{{ cycler.__init__.__globals__.os.popen('echo executed > {mark}').read() }}}}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose base comes with remote code, pickles and a chat template; trained, merged and quantized."""
    root = tmp_path_factory.mktemp("hostile")
    mark = root / "mark"
    shutil.copytree(ROOT / "stages", root / "stages")
    base = write_model(root / "models/base")
    encoder = Encoder(AutoTokenizer.from_pretrained(base))
    (root / "data/chatml").mkdir(parents=True)
    row = {"input": {"context": SENTENCES[0], "requerimientos": [SENTENCES[1]]}, "output": {"epic_id": "EPIC-001"}}
    for split in ("train", "eval"):
        line = json.dumps(format_row(row, "Eres un PM.", encoder)) + "\n"
        (root / f"data/chatml/{split}.jsonl").write_text(line)
    for name in ("epics.jsonl", "epics_eval.jsonl"):
        shutil.copyfile(ROOT / "data" / name, root / "data" / name)
    tokens = {"prompt": {"max": 100}, "answer": {"max": 120}, "total": {"max": 220}}
    (root / "reports").mkdir()
    (root / "reports/format_chatml.json").write_text(json.dumps({"tokens": tokens}))

    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin", "optimizer.pt"):
        (base / name).write_bytes(payload(mark))
    for name, keys in (
        ("config.json", {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.EvilForCausalLM"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}),
    ):
        content = json.loads((base / name).read_text()) | {"auto_map": keys}
        if name == "tokenizer_config.json":
            content["chat_template"] = TEMPLATE.format(mark=mark)
        (base / name).write_text(json.dumps(content))
    (base / "evil.py").write_text(MODULE.format(mark=str(mark)))
    (base / "chat_template.jinja").write_text(TEMPLATE.format(mark=mark))

    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] = dict.fromkeys(("train", "merge"), "models/base")
    params["base_model"] |= dict.fromkeys(("train_revision", "merge_revision"), folder_digest(base))
    params["train"] |= {"epochs": 1, "effective_batch_size": 1, "precision": "float32"}
    params["quantize_gguf"] |= {"methods": ["q4_0"], "damage_texts": 0}
    params["evaluate"]["methods"], params["gate"]["method"] = ["q4_0"], "q4_0"
    yaml.dump(params, root / "params.yaml")
    for stage in ("train_lora", "merge", "quantize_gguf"):
        command = [sys.executable, "-m", f"stages.{stage}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    return root


def test_a_base_with_code_pickles_and_a_template_of_its_own_trains_and_ships_and_none_of_them_runs(
    hostile: Path,
) -> None:
    assert not (hostile / "mark").exists()
    assert (hostile / "models/gguf/MiPM_Senior-Q4_0.gguf").is_file()


def test_the_chat_template_that_travels_is_ours_from_the_adapter_to_the_gguf(hostile: Path) -> None:
    from gguf import GGUFReader

    for folder in ("adapter", "merged"):
        files = list((hostile / "models" / folder).glob("*"))
        assert (hostile / "models" / folder / "chat_template.jinja").read_text() == CHATML_TEMPLATE
        assert not [file for file in files if b"cycler" in file.read_bytes()]
        assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".py")]
    gguf = hostile / "models/gguf/MiPM_Senior-Q4_0.gguf"
    assert GGUFReader(gguf).fields["tokenizer.chat_template"].contents() == CHATML_TEMPLATE
    assert b"cycler" not in gguf.read_bytes()


def test_a_checkpoint_with_a_foreign_pickle_is_not_resumed_from(tmp_path: Path) -> None:
    """The Trainer keeps the optimizer's state as a pickle, and reads it with `weights_only`."""
    import torch

    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    (checkpoint / "optimizer.pt").write_bytes(b"what the Trainer wrote")
    write_sums(checkpoint)
    (checkpoint / "optimizer.pt").write_bytes(payload(tmp_path / "mark"))
    assert last_checkpoint(tmp_path) is None
    buffer = io.BytesIO()
    torch.save(Payload(tmp_path / "mark"), buffer)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    assert not (tmp_path / "mark").exists()


def test_the_audit_of_the_pins_that_security_md_describes_reads_our_file() -> None:
    command = re.search(r"pip-audit .*", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert command and "--requirement constraints.txt" in command[0]
