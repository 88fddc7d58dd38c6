"""merge: real adapters of PEFT's making on a tiny sharded base, held against PEFT's own merge."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from stages import merge
from stages.shared.base_model import folder_digest
from stages.shared.chatml import CHATML_TEMPLATE
from stages.shared.checksums import write_sums
from tests.tiny_model import write_model

ROOT = Path(__file__).parents[1]
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(folder: Path) -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in shards, an adapter with no zero in it, and what PEFT merges them to, in float32."""
    root = tmp_path_factory.mktemp("made")
    base = write_model(root / "models/base-tiny", shards=True)
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["base_model"] |= {"merge": "models/base-tiny", "merge_revision": None}
    params["merge"]["dtype"] = "bfloat16"
    yaml.dump(params, root / "params.yaml")
    torch.manual_seed(1)
    model = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=6, target_modules=ADAPTED, init_lora_weights=False))
    adapter = root / "models/adapter"
    model.save_pretrained(str(adapter))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, adapter / name)
    (adapter / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    record = {"merge_base": {"name": "models/base-tiny", "revision": folder_digest(base)}, "lora": {"r": 4}}
    (adapter / "training.json").write_text(json.dumps(record))
    write_sums(adapter)
    save_file(
        {k: v.contiguous() for k, v in model.merge_and_unload().state_dict().items() if k != "lm_head.weight"},
        root / "peft",
    )
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one test to change."""
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    write_sums(file.parent)


def edit_tensors(file: Path, change: Any) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    write_sums(file.parent)


def adopt_base(project: Path) -> None:
    """Make the adapter the base's as it is now."""
    digest = folder_digest(project / "models/base-tiny")
    edit_json(project / "models/adapter/training.json", merge_base={"name": "models/base-tiny", "revision": digest})


def shard_of(folder: Path, name: str) -> Path:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / str(index["weight_map"][name])


def nothing_is_written(project: Path) -> bool:
    return sorted(path.name for path in (project / "models").iterdir()) == ["adapter", "base-tiny"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_bit_is_that_of_peft_s_own_merge(project: Path, dtype: str) -> None:
    params = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(params.replace("dtype: bfloat16", f"dtype: {dtype}"), encoding="utf-8")
    merge.main()
    expected = load_file(project / "peft")
    shards = sorted((project / "models/merged").glob("*.safetensors"))
    assert len(shards) >= 2
    merged = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    assert merged.keys() == expected.keys()
    base = {k: v for f in (project / "models/base-tiny").glob("*.safetensors") for k, v in load_file(f).items()}
    for name, tensor in merged.items():
        assert tensor.dtype == getattr(torch, dtype)
        # In the base's own type first: a float16 file holds no other weights than a bfloat16 one.
        assert torch.equal(tensor, expected[name].to(torch.bfloat16).to(tensor.dtype)), name
        adapted = name.split(".")[-2] in ADAPTED and name.endswith("weight")
        assert torch.equal(tensor, base[name].to(tensor.dtype)) != adapted, name


def test_one_layer_of_a_14b_has_the_bits_of_peft_s_own_merge() -> None:
    torch.manual_seed(2)
    model: Any = torch.nn.Sequential()
    model.add_module("q_proj", torch.nn.Linear(13824, 5120, bias=False))
    weight = model.q_proj.weight.data.bfloat16()
    model.q_proj.weight.data = weight.float()
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=24, target_modules=["q_proj"], init_lora_weights=False))
    layer = model.base_model.model.q_proj
    pair = (layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data)
    ours = merge.merged_tensor(weight, pair, 24 / 16)
    assert torch.equal(ours, model.merge_and_unload().q_proj.weight.data.bfloat16())


def test_the_dequantized_base_is_what_4_bit_training_saw_in_every_linear_with_an_adapter_or_without(
    project: Path,
) -> None:
    """Held against a layer that bitsandbytes itself has quantized and multiplies with."""
    from bitsandbytes.nn import Linear4bit

    params = (project / "params.yaml").read_text(encoding="utf-8").replace("base: original", "base: dequantized")
    params = params.replace("load_in_4bit: false", "load_in_4bit: true")
    (project / "params.yaml").write_text(params, encoding="utf-8")
    file = project / "models/adapter/adapter_model.safetensors"
    adapted = "model.layers.0.mlp.up_proj"
    pair = {key: load_file(file)[f"base_model.model.{adapted}.lora_{key}.weight"] for key in "AB"}
    edit_tensors(file, lambda tensors: [tensors.pop(name) for name in list(tensors) if "q_proj" in name])
    merge.main()
    merged, base = (
        {
            name: tensor
            for shard in (project / folder).glob("*.safetensors")
            for name, tensor in load_file(shard).items()
        }
        for folder in ("models/merged", "models/base-tiny")
    )
    for module in (adapted, "model.layers.1.self_attn.q_proj"):
        weight = base[f"{module}.weight"]
        layer = Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
        layer.load_state_dict({"weight": weight})
        layer.to("cpu")
        seen = layer(torch.eye(weight.shape[1], dtype=torch.bfloat16)).T.float()
        if module == adapted:
            seen = seen + (pair["B"] @ pair["A"]) * (6 / 4)
        assert torch.equal(merged[f"{module}.weight"], seen.bfloat16()), module
        assert not torch.equal(merged[f"{module}.weight"], weight)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"):
        assert torch.equal(merged[name], base[name])


def test_too_little_room_is_told_before_anything_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**10))
    with pytest.raises(SystemExit, match=r"models/merged: needs 0\.00 GiB, the disk has 0\.00 GiB free"):
        merge.main()
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**10))
    with pytest.raises(SystemExit, match=r"models/merged: making it takes 0\.00 GiB of memory"):
        merge.main()
    assert nothing_is_written(project)


def test_shards_and_index_are_laid_out_as_the_base_s(project: Path) -> None:
    merge.main()
    base, merged = project / "models/base-tiny", project / "models/merged"
    assert (merged / "model.safetensors.index.json").read_bytes() == (
        base / "model.safetensors.index.json"
    ).read_bytes()
    for shard in base.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as one, safe_open(merged / shard.name, framework="pt") as other:
            assert set(one.keys()) == set(other.keys())
        assert (merged / shard.name).stat().st_size == pytest.approx(shard.stat().st_size, abs=1024)


def test_transformers_loads_it_and_ends_an_answer_at_im_end(project: Path) -> None:
    edit_json(project / "models/base-tiny/generation_config.json", eos_token_id=0)
    adopt_base(project)
    merge.main()
    model = load(project / "models/merged")
    assert model.config.eos_token_id == 2
    assert model.generation_config.eos_token_id == [2, 0]
    merged = project / "models/merged"
    assert (merged / "chat_template.jinja").read_text() == CHATML_TEMPLATE
    assert (merged / "training.json").read_bytes() == (project / "models/adapter/training.json").read_bytes()
    assert json.loads((merged / "config.json").read_text())["dtype"] == "bfloat16"
    assert not list((project / "models").glob(".*"))


def test_a_base_with_other_weights_is_refused_with_both_revisions(project: Path) -> None:
    trained = folder_digest(project / "models/base-tiny")
    shard = shard_of(project / "models/base-tiny", "model.norm.weight")
    edit_tensors(shard, lambda tensors: tensors["model.norm.weight"].add_(1))
    now = folder_digest(project / "models/base-tiny")
    with pytest.raises(SystemExit, match=f"trained for models/base-tiny at {trained}, base_model.merge is .* at {now}"):
        merge.main()
    assert nothing_is_written(project)


@pytest.mark.parametrize("key", ["use_dora", "use_rslora", "modules_to_save", "rank_pattern"])
def test_an_adapter_of_another_formula_is_refused_by_the_key(project: Path, key: str) -> None:
    edit_json(project / "models/adapter/adapter_config.json", **{key: {"lm_head": 8}})
    with pytest.raises(SystemExit, match=f"adapter_config.json: {key} is set; only plain LoRA can be merged"):
        merge.main()
    assert nothing_is_written(project)


def test_a_matrix_without_its_partner_is_refused_by_name(project: Path) -> None:
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    edit_tensors(project / "models/adapter/adapter_model.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(SystemExit, match=f"{name} is missing"):
        merge.main()
    assert nothing_is_written(project)


def test_an_adapter_that_holds_more_than_lora_is_refused(project: Path) -> None:
    file = project / "models/adapter/adapter_model.safetensors"
    edit_tensors(file, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(SystemExit, match="holds more than LoRA matrices"):
        merge.main()


def test_eight_bit_weights_are_refused_by_tensor_and_leave_nothing_half_written(project: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    shard = shard_of(project / "models/base-tiny", name)
    edit_tensors(shard, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    adopt_base(project)
    with pytest.raises(SystemExit, match=f"{name} is torch.int8. base_model.merge must name 16-bit weights"):
        merge.main()
    assert nothing_is_written(project)


def test_a_base_of_another_shape_is_refused_with_both_shapes(project: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    shard = shard_of(project / "models/base-tiny", name)
    edit_tensors(shard, lambda tensors: tensors.update({name: tensors[name][:-1].contiguous()}))
    adopt_base(project)
    with pytest.raises(SystemExit, match=rf"{name} is \[511, 256\], the adapter's is \[512, 256\]"):
        merge.main()
    assert nothing_is_written(project)


def test_a_base_without_a_tensor_that_the_adapter_changes_is_refused(project: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(shard_of(project / "models/base-tiny", name), lambda tensors: tensors.pop(name))
    adopt_base(project)
    with pytest.raises(SystemExit, match=f"has no {name}"):
        merge.main()
    assert nothing_is_written(project)


def test_a_run_killed_before_its_end_leaves_the_old_model_whole_and_the_next_run_cleans_up(project: Path) -> None:
    merge.main()
    merged = project / "models/merged"
    before = {file.name: file.read_bytes() for file in merged.iterdir()}
    code = (
        "import os, signal, stages.merge as merge\n"
        "merge.write_configs = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"  # shards are written, configs not
        "merge.main()"
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=project, env=environment, check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert list((project / "models/.merged.partial").glob("*.safetensors"))
    assert {file.name: file.read_bytes() for file in merged.iterdir()} == before
    merge.main()
    assert not (project / "models/.merged.partial").exists()
    assert {file.name: file.read_bytes() for file in merged.iterdir()} == before
