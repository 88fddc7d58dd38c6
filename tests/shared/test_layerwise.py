"""layerwise.py, imatrix.py and damage.py on real tiny models, held against transformers and llama.cpp's formats."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from stages.shared.chatml_rows import Text, read_texts
from stages.shared.damage import Reference
from stages.shared.gguf_writer import About, read_model, write_ggufs
from stages.shared.imatrix import Imatrix, collect, write_imatrix
from stages.shared.layerwise import gguf_weights, hidden_states, output_matrix, stored_weights
from stages.shared.transfer import fastest_dtype
from tests.tiny_model import write_model

IDS = [[1, 40, 300, 77, 123, 2, 5, 260], [3, 4, 5, 6], list(range(10, 80))]
ABOUT = About("Tiny", "", "other", [], [], "tiny", "0", {})


def in_transformers(folder: Path, dtype: str = "float32") -> Any:
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=getattr(torch, dtype))


@pytest.mark.parametrize("shape", [{}, {"kind": "qwen3", "tied": False}], ids=["qwen2 tied", "qwen3 untied"])
def test_a_model_run_layer_by_layer_says_what_transformers_says(shape: dict[str, Any], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", **shape)
    model, network = read_model(folder), in_transformers(folder)
    states = hidden_states(model, stored_weights(model), IDS)
    head = output_matrix(model, stored_weights(model))
    for ids, state in zip(IDS, states, strict=True):
        with torch.inference_mode():
            expected = network(torch.tensor([ids])).logits[0]
        assert torch.allclose(state @ head.T, expected, atol=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and the texts as format_chatml writes them."""
    folder = write_model(tmp_path_factory.mktemp("tiny") / "model")
    rows = [{"prompt_ids": ids[:2], "answer_ids": ids[2:]} for ids in IDS]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def matrix(folder: Path) -> Imatrix:
    return collect(read_model(folder), folder / "train.jsonl", 32)


def test_importance_is_the_mean_square_of_what_each_matrix_is_multiplied_with(folder: Path, matrix: Imatrix) -> None:
    network, seen = in_transformers(folder, fastest_dtype()), {}
    for index, layer in enumerate(network.model.layers):
        for gguf, module in (("attn_k", layer.self_attn.k_proj), ("ffn_down", layer.mlp.down_proj)):
            rows: list[torch.Tensor] = seen.setdefault(f"blk.{index}.{gguf}.weight", [])
            module.register_forward_pre_hook(lambda _, arguments, rows=rows: rows.append(arguments[0][0]))
    with torch.inference_mode():
        for ids in IDS:
            network(torch.tensor([ids]))
    for name, rows in seen.items():
        assert torch.allclose(matrix.mean_squares[name], torch.cat(rows).float().square().mean(0), rtol=1e-3)
    assert len(matrix.sums) == 2 * 7
    assert (matrix.tokens, matrix.texts) == (82, 3)


def test_the_texts_of_a_matrix_are_spread_over_the_file(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    ids = [IDS[2][:length] for length in (3, 4, 6, 10, 18, 34)]
    file.write_text("".join(json.dumps({"prompt_ids": each[:2], "answer_ids": each[2:]}) + "\n" for each in ids))
    tokens = {count: collect(read_model(folder), file, count).tokens for count in (1, 2, 3, 6, 9)}
    assert tokens == {1: 3, 2: 3 + 10, 3: 3 + 6 + 18, 6: 75, 9: 75}


def test_the_matrix_is_stored_as_llama_cpps_tool_stores_it(matrix: Imatrix, tmp_path: Path) -> None:
    write_imatrix(tmp_path / "imatrix.gguf", matrix)
    reader = GGUFReader(tmp_path / "imatrix.gguf")
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert values["general.type"] == "imatrix"
    assert values["imatrix.chunk_count"] == 3
    assert values["imatrix.datasets"] == [str(matrix.file)]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 2 * len(matrix.sums)
    for name, total in matrix.sums.items():
        assert tensors[f"{name}.in_sum2"].shape.tolist() == [len(total), 1]
        assert torch.equal(torch.from_numpy(tensors[f"{name}.in_sum2"].data[0].copy()), total)
        assert tensors[f"{name}.counts"].data.tolist() == [[82.0]]


@pytest.fixture(scope="module")
def damage(folder: Path, matrix: Imatrix) -> dict[str, dict[str, float]]:
    """What each file costs, those with the matrix under the method's name and a plus."""
    model = read_model(folder)
    reference = Reference(model, read_texts(folder / "train.jsonl"))
    costs = {}
    for plus, importance in (("", None), ("+", matrix.mean_squares)):
        targets = {method: folder / f"{method}{plus}.gguf" for method in ("bf16", "q8_0", "q4_k_m", "q3_k_m")}
        write_ggufs(model, targets, ABOUT, importance)
        for method, file in targets.items():
            costs[method + plus] = reference.damage(gguf_weights(file))
    return costs


def test_fewer_bits_cost_more_and_the_model_s_own_type_nothing(damage: dict[str, dict[str, float]]) -> None:
    divergences = [damage[method]["kl_divergence"] for method in ("bf16", "q8_0", "q4_k_m", "q3_k_m")]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[0] < divergences[1] < divergences[2] < divergences[3]
    assert damage["bf16"]["perplexity_ratio"] == pytest.approx(1, abs=1e-4)
    assert damage["q3_k_m"]["perplexity_ratio"] != 1


def test_an_importance_matrix_lowers_the_cost_on_the_texts_it_comes_from(damage: dict[str, dict[str, float]]) -> None:
    assert damage["q3_k_m+"]["kl_divergence"] < damage["q3_k_m"]["kl_divergence"]
    assert damage["q8_0+"] == damage["q8_0"]


def test_damage_is_the_divergence_and_the_perplexity_that_transformers_gives(folder: Path) -> None:
    """Against a file whose only difference is a doubled output norm."""
    model, network = read_model(folder), in_transformers(folder)
    weights = stored_weights(model)
    texts = [Text(ids[:3], ids[3:]) for ids in IDS]
    cost = Reference(model, texts).damage(lambda name: weights(name) * (2 if name == "output_norm.weight" else 1))
    divergence, surprise, tokens = 0.0, 0.0, 0
    for text in texts:
        with torch.inference_mode():
            logits = network(torch.tensor([text.ids])).logits[0][2:-1]
        one, other = logits.log_softmax(-1), (2 * logits).log_softmax(-1)
        divergence += (one.exp() * (one - other)).sum().item()
        chosen = torch.tensor(text.answer).unsqueeze(1)
        surprise += (one - other).gather(1, chosen).sum().item()
        tokens += len(text.answer)
    assert cost["kl_divergence"] == pytest.approx(divergence / tokens, rel=1e-3)
    assert cost["perplexity_ratio"] == pytest.approx(torch.tensor(surprise / tokens).exp().item(), rel=1e-3)
