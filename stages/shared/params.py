"""params.yaml as typed values: every knob, its type and its range, in one place.

`load_params` checks the whole file, so a mistyped knob stops the first stage that runs, not the last.
"""

import difflib
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode
from ruamel.yaml.reader import ReaderError

Text = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Method = Literal["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_m", "q4_0", "q5_0"]
Linear = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _auto_or_positive(value: Any) -> Any:
    # One message for the pair: pydantic would report each half of the union on its own.
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise PydanticCustomError("auto_or_positive", "Input should be auto or a whole number from 1")


AutoOrPositive = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_positive)]


class Section(BaseModel):
    """A section of params.yaml: no unknown keys, no silent conversions, no change after loading."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class BaseModelParams(Section):
    """Where the weights come from: a local folder or a Hub repo id, with the revision to pin."""

    train: Text
    train_revision: Text | None
    merge: Text
    merge_revision: Text | None


class ValidateParams(Section):
    """How alike two inputs may be: Jaccard similarity of their sets of word shingles, 0 to 1."""

    shingle_words: Annotated[int, Field(ge=1, le=20)]
    max_similarity: Annotated[float, Field(gt=0, le=1)]


class FormatChatmlParams(Section):
    """What stands around every example."""

    system_prompt: Text


class LoraParams(Section):
    """The adapter: rank, scale (alpha / r), dropout and which linear layers carry it."""

    r: Annotated[int, Field(ge=1, le=1024)]
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Annotated[list[Linear], Field(min_length=1)]


class TrainParams(Section):
    """The training loop; `auto` leaves a choice to train_plan, which never changes the effective batch."""

    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    effective_batch_size: Positive
    micro_batch_size: AutoOrPositive
    gradient_checkpointing: Literal["auto", "none", "full", "unsloth"]
    memory_limit_gib: Annotated[float, Field(gt=0)] | None
    num_processes: Positive
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"]
    weight_decay: Annotated[float, Field(ge=0)]
    lr_scheduler: Literal["linear", "cosine", "constant_with_warmup"]
    max_seq_length: Annotated[int, Field(ge=16)]
    precision: Literal["auto", "bfloat16", "float32"]
    load_in_4bit: bool
    loss_on: Literal["answer", "conversation"]
    keep_best: bool
    logging_steps: Positive
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @model_validator(mode="after")
    def _batches_divide(self) -> "TrainParams":
        micro = 1 if self.micro_batch_size == "auto" else self.micro_batch_size
        if self.effective_batch_size % (micro * self.num_processes):
            raise ValueError(
                f"train.effective_batch_size: {self.effective_batch_size} is not a multiple of "
                f"train.micro_batch_size x train.num_processes ({micro} x {self.num_processes}). Change one of them."
            )
        return self


class MergeParams(Section):
    """Which weights the adapter is folded into, and the 16-bit type of the sum; the base's own loses nothing of it."""

    base: Literal["original", "dequantized"]
    dtype: Literal["bfloat16", "float16"]


class QuantizeGgufParams(Section):
    """Which GGUF files to write (the first is the one the Modelfile names), from what, and whether to measure them."""

    methods: Annotated[list[Method], Field(min_length=1)]
    imatrix: bool
    imatrix_texts: Positive
    damage_texts: Annotated[int, Field(ge=0)]


class EvaluateParams(Section):
    """Which files are measured, by which llama.cpp, and how the answers are drawn (always greedy)."""

    endpoint: Annotated[str, Field(pattern=r"^(embedded|https?://[^/\s]+/?)$")]
    methods: Annotated[list[Method], Field(min_length=1)]
    max_answer_tokens: Positive
    parallel: Positive

    @model_validator(mode="after")
    def _a_server_has_one_file(self) -> "EvaluateParams":
        if self.endpoint != "embedded" and len(self.methods) > 1:
            raise ValueError(
                f"evaluate.methods: {len(self.methods)} files, and the server at evaluate.endpoint has one loaded. "
                "Keep one of them."
            )
        return self


class GateParams(Section):
    """The bars that the shipped method must clear; rates and scores are 0 to 1, chrF is 0 to 100."""

    method: Method
    unconstrained: dict[str, float]
    constrained: dict[str, float]
    baseline_at_most: dict[str, float]
    times_baseline: dict[str, float]


class Params(Section):
    """The whole of params.yaml, one attribute per section."""

    base_model: BaseModelParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    format_chatml: FormatChatmlParams
    lora: LoraParams
    train: TrainParams
    merge: MergeParams
    quantize_gguf: QuantizeGgufParams
    evaluate: EvaluateParams
    gate: GateParams

    @model_validator(mode="after")
    def _dequantized_means_trained_in_4_bits(self) -> "Params":
        if self.merge.base == "dequantized" and not self.train.load_in_4bit:
            raise ValueError("merge.base: is dequantized, but train.load_in_4bit is false. Use original.")
        return self

    @model_validator(mode="after")
    def _measured_methods_are_written(self) -> "Params":
        for name, methods in (("evaluate.methods", self.evaluate.methods), ("gate.method", [self.gate.method])):
            written = self.quantize_gguf.methods if name == "evaluate.methods" else self.evaluate.methods
            source = "quantize_gguf.methods" if name == "evaluate.methods" else "evaluate.methods"
            for method in methods:
                if method not in written:
                    raise ValueError(f"{name}: {method} is not in {source}. Add it there or remove it here.")
        return self


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        SystemExit: one line per problem, each with the dotted name of the key, the fact and the remedy.

    """
    try:
        # YAML 1.2, unlike PyYAML's 1.1: there 2e-05, as `dvc exp run -S` writes it, would be a string.
        values = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SystemExit(f"{path}: not found. Run from the repository's root.") from None
    except UnicodeDecodeError as error:
        raise SystemExit(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    except DuplicateKeyError:
        line, name = _twice(path)
        raise SystemExit(f"{path}:{line}: {name}: stands twice. Keep one of the two.") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SystemExit(f"{path}:{line}: not YAML: {error.problem or error.context}. Mend this line.") from None
    except ReaderError as error:
        line = path.read_text(encoding="utf-8").count("\n", 0, error.position) + 1
        raise SystemExit(f"{path}:{line}: not YAML: character U+{error.character:04X}. Mend this line.") from None
    if not isinstance(values, dict):
        raise SystemExit(f"{path}: holds no sections. Restore it from Git.")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise SystemExit("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    """One line for one of pydantic's errors: dotted name, fact, remedy."""
    *parents, key = problem["loc"] or [""]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        valid = _keys(part for part in parents if part != key)
        close = difflib.get_close_matches(str(key), valid, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return f"{name}: no such knob. {hint}Valid here: {', '.join(valid)}."
    if problem["type"] == "missing":
        return f"{name}: missing. Add it; presets/ and the file in Git show its place."
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    fact = problem["msg"].removeprefix("Input should be ").removeprefix("Value should ")
    return f"{name}: is {reprlib.repr(problem['input'])}, should be {fact}."


def _twice(path: Path) -> tuple[int, str]:
    """Line and dotted name of the first key that its section has already."""
    waiting: list[tuple[str, Any]] = [("", YAML(typ="safe", pure=True).compose(path.read_text(encoding="utf-8")))]
    while waiting:
        prefix, node = waiting.pop()
        seen = set()
        for key, value in node.value if isinstance(node, MappingNode) else []:
            name = f"{prefix}{key.value}"
            if name in seen:
                return key.start_mark.line + 1, name
            seen.add(name)
            waiting.insert(0, (f"{name}.", value))
    return 1, "a key"


def _keys(parents: Iterable[str]) -> list[str]:
    """The valid keys of a section; of the whole file for no parents."""
    model: type[BaseModel] = Params
    for part in parents:
        field = next(f for name, f in model.model_fields.items() if (f.alias or name) == part)
        assert isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        model = field.annotation
    return [field.alias or name for name, field in model.model_fields.items()]
