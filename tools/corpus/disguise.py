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
_PLAIN = re.compile(r"[\w,%€«»]+")
_FREQUENT = 350  # words such as "para" or "cuando" hold a sentence together: they stay
UNANNOUNCED = (0.0, 0.0, 0.6)  # largest share of the answer's own words that is swapped, one of these per conversation
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
    return frozenset(words[:_FREQUENT]), dict(usual), dict(every)


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


def stutter(messages: list[dict[str, str]], rng: random.Random) -> list[dict[str, str]]:
    """Repeat a few words of the last answer once or twice, then let it go on as if nothing had happened.

    A small model that is unsure falls into repeating itself, and each round makes the next more likely. Having read
    many answers that stumbled and went on, it goes on too.
    """
    *rest, last = messages
    lines = last["content"].split("\n")
    for place in rng.sample(range(len(lines)), min(len(lines), rng.randint(1, 3))):
        words = lines[place].split(" ")
        length = rng.randint(2, 7)
        starts = [
            start
            for start in range(len(words) - length)
            if all(_PLAIN.fullmatch(word) for word in words[start : start + length])
        ]
        if starts:
            end = rng.choice(starts) + length
            times = rng.choice((1, 1, 1, 2, 2, 3))
            words[end:end] = words[end - length : end] * times
            lines[place] = " ".join(words)
    return [*rest, {"role": last["role"], "content": "\n".join(lines)}]
