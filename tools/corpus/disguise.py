"""Other words in the same document, so that it cannot be continued from memory.

Words that question and answer share are swapped alike on both sides: once they are any of 84,000 Spanish words, the
answer can only be copied from the question. Words of the answer alone are swapped too, now and then: real answers
hold words that nothing announced, and after one of them the sentence and the JSON must go on as before.

Words: pyspellchecker's Spanish frequency list (MIT licence).
"""

import gzip
import json
import random
import re
from collections import defaultdict
from functools import cache
from importlib.resources import files

_WORD = re.compile(r"[A-Za-zÁÉÍÓÚÑÜáéíóúñü]{4,}")
_RUN = re.compile(r"(?: [\w,%€«»]+){2,}")  # words that stand in one line, each with the space before it
_FREQUENT = 350  # words such as "para" or "cuando" hold a sentence together: they stay
UNANNOUNCED = (
    0.0,
    0.0,
    0.0,
    0.3,
)  # largest share of the answer's own words that is swapped, one of these per conversation
_USUAL = 25_000  # nine in ten replacements are drawn from the words that people really use


@cache
def _dictionary() -> tuple[frozenset[str], dict[str, list[str]], dict[str, list[str]]]:
    """The words that stay, and the usual and all words by their last two letters, most frequent first."""
    packed = files("spellchecker").joinpath("resources/es.json.gz").read_bytes()
    counts: dict[str, int] = json.loads(gzip.decompress(packed))
    words = sorted((w for w in counts if _WORD.fullmatch(w) and w.islower()), key=lambda w: (-counts[w], w))
    usual, every = defaultdict(list), defaultdict(list)
    for rank, word in enumerate(words[_FREQUENT:]):
        every[word[-2:]].append(word)
        if rank < _USUAL:
            usual[word[-2:]].append(word)
    literals = {"true", "false", "null"}  # of JSON
    return frozenset(words[:_FREQUENT]) | literals, dict(usual), dict(every)


def disguise(messages: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Swap a random share of a conversation's words, each for the same word wherever it stands.

    A replacement ends as the word it replaces, so that gender, number and person mostly still agree.
    """
    stay, usual, every = _dictionary()
    asked: set[str] = set()
    answered: set[str] = set()
    for message in messages:
        (answered if message["role"] == "assistant" else asked).update(_WORD.findall(message["content"]))
    swaps = {}
    for words, share in ((asked & answered, rng.random()), (answered - asked, rng.random() * rng.choice(UNANNOUNCED))):
        for word in sorted({word.lower() for word in words} - stay):
            if rng.random() < share:
                pool = (usual if rng.random() < 0.9 else every).get(word[-2:])
                if pool:
                    swaps[word] = rng.choice(pool)

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = swaps.get(word.lower())
        if other is None:
            return word
        return other.capitalize() if word[0].isupper() else other

    return [{"role": m["role"], "content": _WORD.sub(swap, m["content"])} for m in messages]


def stutter(text: str, rng: random.Random) -> list[tuple[str, bool]]:
    """A text in which a few words are repeated once or more, as stretches: (text, whether to learn it).

    A small model that is unsure falls into repeating itself, and each round makes the next more likely. The
    repetitions are read and never learnt, only how the text goes on after them: so it learns to get out.
    """
    stretches: list[tuple[str, bool]] = []
    written = 0
    spots = list(_RUN.finditer(text))
    for match in sorted(rng.sample(spots, min(len(spots), rng.randint(1, 4))), key=lambda match: match.start()):
        words = match[0].split(" ")[1:]
        length = min(len(words), rng.randint(1, 8))
        start = rng.randint(0, len(words) - length)
        end = match.start() + sum(len(word) + 1 for word in words[: start + length])
        repeated = "".join(f" {word}" for word in words[start : start + length])
        times = rng.choice((1, 1, 2, 2, 3, 5, 8, 20))
        stretches += [(text[written:end], True), (repeated * max(1, min(times, 60 // length)), False)]
        written = end
    return [*stretches, (text[written:], True)]
