"""What an answer is worth: is it an Epic, and does it cover what it was asked for.

Every score is computed from the text alone; an answer that is not JSON has no fields and no criteria, so its
coverage is 0.
"""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from stages.shared.epic_schema import output_errors

# A requirement is covered by a criterion that holds at least this share of its content stems. On the 128
# hand-written Epics 99.9 % of the requirements are covered by their own criteria at this share, and 0.7 % by
# those of another Epic (tests/shared/test_scoring.py measures both).
COVERED = 0.5

_STOPWORDS = frozenset(
    """
    a al ante aun bajo cada como con contra cual cuales cuando de debe deben deber del desde donde dos durante e el
    ella ellas ello ellos en entre era es esa esas ese eso esos esta estaba estan estar estas este esto estos fue ha
    haber hacia han hasta hay la las le les lo los mas me mi mientras misma mismas mismo mismos mucho muy nada ni no
    nos o os otra otras otro otros para pero poder por porque pueda puedan puede pueden que quien se sea sean segun
    ser si sin sobre solo son su sus tal tambien tan tanto te tiene tienen toda todas todo todos tras tu un una unas
    uno unos y ya yo sistema
    """.split()
)


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("spanish")


def content_stems(text: str) -> frozenset[str]:
    """The stems of a Spanish text's content words, and its numbers.

    Lower case, Snowball's Spanish stemmer (https://snowballstem.org/algorithms/spanish/stemmer.html), accents
    dropped; stop words and single letters are left out.
    """
    words = [word for word in re.findall(r"\w+", text.lower()) if word.isdigit() or len(word) > 1]
    content = [word for word in words if _plain(word) not in _STOPWORDS]
    return frozenset(_plain(stem) for stem in _stemmer().stemWords(content))


def _plain(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def covered(requirement: str, criteria: Sequence[str]) -> bool:
    """Whether one single criterion holds at least `COVERED` of the requirement's content stems."""
    stems = content_stems(requirement)
    return bool(stems) and any(len(stems & content_stems(criterion)) >= COVERED * len(stems) for criterion in criteria)


def requirement_coverage(requirements: Sequence[str], criteria: Sequence[str]) -> float:
    """The share of the requirements that some criterion covers, 0 to 1."""
    return sum(covered(requirement, criteria) for requirement in requirements) / len(requirements)


def field_coverage(answer: dict[str, Any], reference: dict[str, Any]) -> float:
    """The share of the reference's fields that the answer has, filled, with the same JSON type; 0 to 1."""
    present = sum(bool(answer.get(field)) and type(answer[field]) is type(value) for field, value in reference.items())
    return present / len(reference)


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole text is, or None; nothing is cut out of surrounding prose."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair, as in "\ud800", is no text
    except (ValueError, RecursionError):  # ValueError: not JSON, or a number of thousands of digits
        return None
    return value if isinstance(value, dict) else None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def criteria_of(answer: dict[str, Any] | None) -> list[str]:
    """The acceptance criteria of an answer, as far as they are a list of strings."""
    criteria = (answer or {}).get("acceptance_criteria")
    return [item for item in criteria if isinstance(item, str)] if isinstance(criteria, list) else []


def score(text: str, finished: bool, requirements: Sequence[str], reference: dict[str, Any]) -> dict[str, float]:
    """The scores of one answer, each 0 to 1.

    Args:
        text: what the model wrote.
        finished: whether it ended the answer itself.
        requirements: the input's `requerimientos`.
        reference: the hand-written output for the same input.

    """
    answer = parse_object(text)
    return {
        "finished": float(finished),
        "json_valid": float(answer is not None),
        "schema_valid": float(answer is not None and not output_errors(answer)),
        "field_coverage": field_coverage(answer or {}, reference),
        "requirement_coverage": requirement_coverage(requirements, criteria_of(answer)),
    }


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a rate; of no trials at all, 0 to 1.

    Formula: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if n == 0:
        return 0.0, 1.0
    z = 1.959963984540054
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF, 0 to 100 (Popović 2015; sacrebleu's implementation and defaults)."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(hypotheses), [list(references)]).score)
