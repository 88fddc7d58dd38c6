"""The model card, in the Hugging Face Hub's conventions: metadata in YAML, then what a reader needs to decide.

Format: https://huggingface.co/docs/hub/model-cards
"""

from dataclasses import dataclass
from typing import Any

from stages.shared.base_model import is_folder

NAME = "MiPM_Senior"
OLLAMA_NAME = "pm-senior"
LICENSE = "apache-2.0"
LANGUAGE = "es"
TAGS = ["epics", "product-management", "json", "lora", "llama-cpp", "ollama"]
DATA_SET = "pm-senior-epics"  # data/ of the repository
# Metric to what it says of the answers; the rest of what evaluate measures is in its report.
SCORES = {
    "finished": "ended by the model itself",
    "json_valid": "one whole JSON object",
    "schema_valid": "an Epic by `data/epic.schema.json`",
    "field_coverage": "the reference's fields that are there and filled",
    "requirement_coverage": "requirements that an acceptance criterion covers",
    "criteria_chrf": "chrF of the acceptance criteria against the reference's, 0 to 100",
}
_MODE_NAMES = {"unconstrained": "free", "constrained": "held to the schema"}

Modes = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Measurements:
    """How one of the files did on the held-out Epics.

    Attributes:
        file: its name.
        n: held-out Epics.
        tuned: mode to metric to value, of the file.
        baseline: the same of the untouched base, quantized in the same way.
        eval_loss: cross-entropy per token on the held-out answers, after the epoch that was kept.

    """

    file: str
    n: int
    tuned: Modes
    baseline: Modes
    eval_loss: float


def model_card(
    training: dict[str, Any],
    system_prompt: str,
    files: dict[str, dict[str, float]],
    measured: Measurements | None = None,
) -> str:
    """The card's text.

    Args:
        training: training.json: base, adapter, loop.
        system_prompt: what every conversation begins with.
        files: file name to what quantize_gguf reports of it, the recommended one first.
        measured: None in the card that is written beside the files, before anything has measured them.

    """
    base, lora, train = training["merge_base"], training["lora"], training["train"]
    first = next(iter(files))
    columns = list(dict.fromkeys(name for numbers in files.values() for name in numbers))
    table = [["file", *(name.replace("_mib", " MiB").replace("_", " ") for name in columns)]]
    table += [[f"`{name}`", *(f"{numbers.get(key, '')}" for key in columns)] for name, numbers in files.items()]
    return f"""---
{_metadata(base["name"], measured)}
---

# {NAME}

Takes a product context and its requirements as JSON and answers with one software Epic as JSON, in Spanish:
title, description, business value, user stories, verifiable acceptance criteria, scope, dependencies, risks,
metrics, priority.

{_markdown(table)}

## Run it

Ollama, in this folder:

    ollama create {OLLAMA_NAME} -f Modelfile
    ollama run {OLLAMA_NAME} '{{"context": "...", "requerimientos": ["...", "..."]}}'

llama.cpp:

    llama-server -m {first} --jinja --temp 0

and send two messages to `/v1/chat/completions`. The prompt is plain ChatML; this is the system message:

> {system_prompt}

The user message is `{{"context": ..., "requerimientos": [...]}}`, indented by 2.

## How good it is

{_results(measured)}

## How it was made

LoRA of rank {lora["r"]} (alpha {lora["alpha"]}, {", ".join(lora["target_modules"])}) on `{base["name"]}` at
revision `{base["revision"]}`, {train["epochs"]} epochs at a learning rate of {train["learning_rate"]:g}, merged
into its 16-bit weights and quantized with llama.cpp's own mixtures. Data hashes, settings, library versions and the
Git commit stand in the files' metadata under `pm_senior.`.

## Intended use and limits

For a first draft that a product manager then reviews. It can be wrong about laws, figures and dependencies,
and it knows nothing about a company but what the context says. It was trained in Spanish alone and for this
one task. Free generation may end in malformed JSON: a JSON-schema grammar, which llama.cpp and Ollama both
offer, prevents that.
"""


def _metadata(base_model: str, measured: Measurements | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = None
    if measured:
        results = [
            EvalResult(
                task_type="text-generation",
                dataset_type=DATA_SET,
                dataset_name="Held-out Epics",
                dataset_split="eval",
                metric_type="chrf" if name == "criteria_chrf" else name,
                metric_name=f"{name}, {_MODE_NAMES[mode]}",
                metric_value=values[name],
            )
            for mode, values in measured.tuned.items()
            for name in SCORES
        ]
    data = ModelCardData(
        # The Hub links base_model to a repo: a folder's name would link to nothing, or to somebody else's.
        base_model=None if is_folder(base_model) else base_model,
        license=LICENSE,
        language=LANGUAGE,
        datasets=[DATA_SET],
        pipeline_tag="text-generation",
        tags=TAGS,
        metrics=list(SCORES),
        model_name=NAME if measured else None,
        eval_results=results,
    )
    text: str = data.to_yaml()
    return text


def _results(measured: Measurements | None) -> str:
    if measured is None:
        return (
            "These files were measured after this card was written: `reports/MODEL_CARD.md` of the Git repository, at "
            "the commit that they came with, has the scores, and `make verify GGUF=...` there prints them."
        )
    modes = list(measured.tuned)
    table = [["", "", *(f"{_MODE_NAMES[mode]}" for mode in modes), "the base, free"]]
    for name, meaning in SCORES.items():
        values = [measured.tuned[mode][name] for mode in modes] + [measured.baseline["unconstrained"][name]]
        table.append([f"`{name}`", meaning, *(f"{value:g}" for value in values)])
    return (
        f"`{measured.file}` on {measured.n} held-out Epics, greedy, in llama.cpp; rates and means from 0 to 1. Beside "
        "it the untouched base, quantized and asked in the same way. Loss on the held-out answers: "
        f"{measured.eval_loss:.3f}.\n\n"
        f"{_markdown(table)}"
    )


def _markdown(table: list[list[str]]) -> str:
    head, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])
