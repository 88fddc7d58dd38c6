"""gguf_writer.py: real files of tiny models, loaded by llama.cpp and held against transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from stages.shared.gguf_writer import About, read_model, size_label, tensor_bytes, write_ggufs
from stages.shared.quant_mixture import METHODS
from tests.tiny_model import VOCABULARY, write_model

ABOUT = About(
    name="Tiny",
    description="For tests.",
    license="apache-2.0",
    languages=["es"],
    tags=["epics"],
    base_model="Qwen/Qwen2.5-Coder-14B-Instruct",
    base_revision="0123abcd",
    provenance={"pm_senior.training": '{"lora": {"r": 16}}', "pm_senior.git.dirty": True},
)
PROMPT = [1, 40, 300, 77, 123, 2, 5, 260]
# llama.cpp holds back a token until its bytes are whole characters; the pieces of characters are kept out.
PIECES = [0, 1, 2, *range(97, VOCABULARY)]


def complete(file: Path, tokens: int) -> list[dict[str, Any]]:
    """llama.cpp's greedy continuation of PROMPT: token ids with their best log-probabilities."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 256, 1, False, -1
    params.cpuparams.n_threads = 1
    request = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "n_probs": 5}
    request["logit_bias"] = [[token, False] for token in PIECES]
    answer = xllamacpp.Server(params).handle_completions(request)
    content: list[dict[str, Any]] = answer["choices"][0]["logprobs"]["content"]
    return content


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every method, of a tied Qwen2, in one pass."""
    folder = tmp_path_factory.mktemp("qwen2")
    targets = {method: folder / f"{method}.gguf" for method in METHODS}
    write_ggufs(read_model(write_model(folder / "model")), targets, ABOUT)
    return targets


def write_f16(model: Path) -> Path:
    target = model.with_suffix(".gguf")
    write_ggufs(read_model(model), {"f16": target}, ABOUT)
    return target


@pytest.mark.parametrize("method", METHODS)
def test_llama_cpp_loads_every_method_and_answers_nearly_as_f16_does(method: str, files: dict[str, Path]) -> None:
    reference, answer = complete(files["f16"], 1)[0], complete(files[method], 8)
    assert len(answer) == 8
    ours = {top["id"]: top["logprob"] for top in answer[0]["top_logprobs"]}
    allowed = {"q8_0": 0.1, "f16": 0.001, "bf16": 0.1, "q6_k": 0.3}.get(method, 1.5)
    assert ours.get(reference["id"], -99.0) == pytest.approx(reference["logprob"], abs=allowed)


@pytest.mark.parametrize(
    "shape", [{}, {"tied": False, "shards": True}, {"kind": "qwen3"}], ids=["tied", "untied shards", "qwen3"]
)
def test_f16_in_llama_cpp_is_the_model_in_transformers(shape: dict[str, Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **shape)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([PROMPT])
    with torch.inference_mode():
        expected = model(prompt).logits[0, -1].log_softmax(0)
        options = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": PIECES}
        greedy = model.generate(prompt, **options)[0, len(PROMPT) :]
    answer = complete(write_f16(folder), 8)
    for top in answer[0]["top_logprobs"]:
        assert top["logprob"] == pytest.approx(expected[top["id"]].item(), abs=0.02)
    assert [token["id"] for token in answer] == greedy.tolist()


def test_metadata_say_what_the_model_is_and_where_it_comes_from(files: dict[str, Path], tmp_path: Path) -> None:
    reader = GGUFReader(files["q4_k_m"])
    values = {name: field.contents() for name, field in reader.fields.items()}
    expected = {
        "general.architecture": "qwen2",
        "general.name": "Tiny",
        "general.basename": "Tiny",
        "general.license": "apache-2.0",
        "general.languages": ["es"],
        "general.tags": ["epics"],
        "general.file_type": 15,
        "general.quantization_version": 2,
        "general.base_model.count": 1,
        "general.base_model.0.name": "Qwen2.5-Coder-14B-Instruct",
        "general.base_model.0.organization": "Qwen",
        "general.base_model.0.version": "0123abcd",
        "general.base_model.0.repo_url": "https://huggingface.co/Qwen/Qwen2.5-Coder-14B-Instruct",
        "pm_senior.training": '{"lora": {"r": 16}}',
        "pm_senior.git.dirty": True,
        "qwen2.context_length": 512,
        "qwen2.embedding_length": 256,
        "qwen2.block_count": 2,
        "qwen2.feed_forward_length": 512,
        "qwen2.attention.head_count": 4,
        "qwen2.attention.head_count_kv": 2,
        "qwen2.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: values.get(name) for name in expected} == expected
    assert values["qwen2.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert "<|im_start|>" in values["tokenizer.chat_template"]
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert tokens[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert tokens[-1] == f"[PAD{VOCABULARY - 1}]"
    assert (types[:4], types[-1], len(tokens), len(types)) == ([3, 3, 3, 1], 5, VOCABULARY, VOCABULARY)
    merges = json.loads((files["q4_k_m"].parent / "model/tokenizer.json").read_text())["model"]["merges"]
    assert values["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]


def test_tied_embeddings_write_no_output_and_vectors_stay_float32(files: dict[str, Path]) -> None:
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(files["q4_k_m"]).tensors}
    assert "output.weight" not in types
    assert types["token_embd.weight"] == "Q6_K"
    vectors = [name for name in types if name.endswith(".bias") or "_norm" in name]
    assert len(vectors) == 2 * 5 + 1
    assert {types[name] for name in vectors} == {"F32"}


def test_one_pass_over_many_methods_writes_what_one_method_alone_writes(files: dict[str, Path], tmp_path: Path) -> None:
    write_ggufs(read_model(files["f16"].parent / "model"), {"q4_k_s": tmp_path / "alone.gguf"}, ABOUT)
    assert (tmp_path / "alone.gguf").read_bytes() == files["q4_k_s"].read_bytes()


def test_the_size_is_known_before_writing(files: dict[str, Path]) -> None:
    model = read_model(files["f16"].parent / "model")
    for method, file in files.items():
        assert tensor_bytes(model, method) == sum(int(tensor.n_bytes) for tensor in GGUFReader(file).tensors)


def test_rope_theta_of_older_configs_is_read_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 5e5, "rope_scaling": None}))
    assert GGUFReader(write_f16(folder)).fields["qwen2.rope.freq_base"].contents() == 5e5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is llama, only qwen2 and qwen3"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type is yarn, only default"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        (
            {"intermediate_size": 768},
            r"mlp.gate_proj.weight is \[512, 256\], config.json makes it \[768, 256\]",
        ),
        ({"num_hidden_layers": 3}, r"model.layers.2.input_layernorm.weight \(and 11 more\) is missing"),
        (
            {"num_hidden_layers": 1},
            r"model.layers.1.input_layernorm.weight \(and 11 more\) is no tensor of a qwen2",
        ),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_in_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(SystemExit, match=message) as error:
        read_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_a_weight_that_no_scale_can_hold_is_refused_by_name(value: float, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SystemExit, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds a weight of"):
        write_f16(folder)


def test_a_tokenizer_that_splits_otherwise_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    text = (folder / "tokenizer.json").read_text()
    assert r"|\\p{N}|" in text
    (folder / "tokenizer.json").write_text(text.replace(r"|\\p{N}|", r"|\\p{N}{1,3}|"))
    with pytest.raises(SystemExit, match="not byte-level BPE with Qwen2's split"):
        write_f16(folder)


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": VOCABULARY, "content": "<|extra|>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(SystemExit, match=r"'<\|extra\|>' has id 512, config.json's vocab_size is 512"):
        write_f16(folder)


@pytest.mark.parametrize(("weights", "label"), [(14_770_033_664, "14.8B"), (494_032_768, "494M"), (86_784, "87K")])
def test_size_labels_read_as_in_model_names(weights: int, label: str) -> None:
    assert size_label(weights) == label
