"""A tiny random Qwen model in a folder, as merge leaves one: for tests that need real files."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from stages.shared.chatml import CHATML_TEMPLATE, END_OF_TEXT, IM_END, IM_START
from stages.shared.gguf_writer import QWEN2_SPLIT

SENTENCES = [
    "Como responsable de almacén, quiero recibir un aviso, para reponer a tiempo.",
    "El sistema debe responder en menos de 300 ms (p95) con 1.200 usuarios a la vez.",
    '{"epic_id": "EPIC-001", "title": "Facturación electrónica según la Ley 1581"}',
]
VOCABULARY = 512


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE with Qwen2's split, trained on three sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 16,
        special_tokens=[END_OF_TEXT, IM_START, IM_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer_class: Any = PreTrainedTokenizerFast
    fast = tokenizer_class(tokenizer_object=tokenizer, eos_token=IM_END, pad_token=END_OF_TEXT)
    fast.save_pretrained(folder)


def write_model(folder: Path, kind: str = "qwen2", tied: bool = True, shards: bool = False, **config: Any) -> Path:
    """A model of two layers and 256 columns, bf16, with everything that quantize_gguf reads."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if kind == "qwen2":
        del shape["head_dim"]
    config_class = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}[kind]
    auto: Any = AutoModelForCausalLM
    made = auto.from_config(config_class(**(shape | config)))
    for name, parameter in made.named_parameters():
        if parameter.dim() == 1:  # biases start at 0 and norms at 1: a swapped one would not show
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.3)
    made.to(torch.bfloat16).save_pretrained(folder, max_shard_size="500KB" if shards else "5GB")
    write_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    training = {
        "base_model": {"name": "Qwen/Qwen2.5-Coder-14B-Instruct", "revision": "0123abcd"},
        "merge_base": {"name": "Qwen/Qwen2.5-Coder-14B-Instruct", "revision": "0123abcd"},
        "data": {"data/chatml/train.jsonl": "feed"},
        "lora": {"r": 16, "alpha": 32, "target_modules": ["q_proj", "v_proj"]},
        "train": {"epochs": 2, "learning_rate": 0.0002},
    }
    (folder / "training.json").write_text(json.dumps(training))
    return folder
