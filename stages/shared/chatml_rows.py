"""The formatted examples of data/chatml as the token ids that a model is trained on."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Text:
    """A prompt and its answer, as token ids."""

    prompt: list[int]
    answer: list[int]

    @property
    def ids(self) -> list[int]:
        """The whole conversation."""
        return self.prompt + self.answer


def read_texts(file: Path) -> list[Text]:
    """All rows of one of format_chatml's files."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Text(row["prompt_ids"], row["answer_ids"]) for row in rows]
