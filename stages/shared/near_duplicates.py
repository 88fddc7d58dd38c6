"""Which texts are nearly the same: Jaccard similarity of their sets of word shingles.

Measure: Broder, On the resemblance and containment of documents (1997). `closest_earlier` compares every pair that
shares a shingle; its memory and time suit ten thousand texts. For more, `signatures` and `candidates` are MinHash with
banding (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4): 512 bytes a text, and every candidate
is to be verified. 42 bands of 3 hashes find a pair of similarity s with probability 1 - (1 - s^3)^42: 0.996 at 0.5,
0.9995 at 0.55, 0.99996 at 0.6; below a threshold of 0.5 it is less (0.94 at 0.4). Time grows with the square of the
number of texts that share a third of their runs (one long form on all of them), memory with the pairs too alike.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASHES, BAND = 128, 3
SLACK = 0.18  # four standard deviations of an estimate from 128 hashes
_MARKS = re.compile("[\u0300-\u036f]")
_WORD = re.compile(r"\w+")


class Match(NamedTuple):
    """A text, an earlier one, and their Jaccard similarity."""

    text: int
    earlier: int
    similarity: float


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased and without accents."""
    return _WORD.findall(_MARKS.sub("", unicodedata.normalize("NFD", text.lower())))


def shingles(text: str, words: int) -> frozenset[tuple[str, ...]]:
    """The runs of `words` words of a text; a shorter text is one run."""
    tokens = words_of(text)
    return frozenset(tuple(tokens[start : start + words]) for start in range(max(1, len(tokens) - words + 1)))


def similarity(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Jaccard similarity of two sets that are not both empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def exceeds(likeness: float, above: float) -> bool:
    """Whether two texts are too alike; the same words always are."""
    return likeness > above or likeness == 1


def closest_earlier(sets: Sequence[frozenset[Any]], above: float) -> Iterator[Match]:
    """Each text that is too alike to an earlier one, with the most alike of those (the first, if several are)."""
    holders: dict[Any, list[int]] = defaultdict(list)
    for text, own in enumerate(sets):
        shared = Counter(earlier for shingle in own for earlier in holders[shingle])
        found = [Match(text, other, n / (len(own) + len(sets[other]) - n)) for other, n in shared.items()]
        best = max(found, key=lambda match: (match.similarity, -match.earlier), default=None)
        if best and exceeds(best.similarity, above):
            yield best
        for shingle in own:
            holders[shingle].append(text)


def signatures(texts: Iterable[str], words: int) -> "NDArray[np.uint32]":
    """MinHash signatures, one row of 128 for each text."""
    import numpy as np

    rows = [[crc32(word.encode()) for word in words_of(text)] for text in texts]
    for row in rows:
        row.extend([0] * (words - len(row)))
    lengths = np.array([len(row) for row in rows])
    ends = np.cumsum(lengths)
    tokens = np.fromiter(chain.from_iterable(rows), np.uint64, ends[-1])
    runs = np.zeros(len(tokens) - words + 1, np.uint64)
    for place in range(words):
        runs = _mix(runs + tokens[place : len(runs) + place])
    # A run that begins in the last words of a text would end in the next text.
    whole = np.ones(len(tokens), bool)
    for place in range(1, words):
        whole[ends - place] = False
    runs = runs[whole[: len(runs)]]
    starts = np.concatenate([[0], np.cumsum(lengths - words + 1)[:-1]])
    made = np.empty((len(rows), HASHES), np.uint32)
    draw = np.random.default_rng(0)
    for column, (factor, shift) in enumerate(draw.integers(1 << 62, size=(HASHES, 2), dtype=np.uint64)):
        hashes = ((runs * (factor | np.uint64(1)) + shift) >> np.uint64(32)).astype(np.uint32)
        made[:, column] = np.minimum.reduceat(hashes, starts)
    return made


def _mix(values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit depends on every bit."""
    import numpy as np

    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def candidates(made: "NDArray[np.uint32]", above: float) -> list[tuple[int, int]]:
    """Pairs (text, earlier), in order, that are worth verifying; of equal signatures only the first is compared on."""
    import numpy as np

    keys = _keys(made)
    first, group = np.unique(keys, return_index=True, return_inverse=True)[1:]
    owner = first[group]
    copies = np.flatnonzero(owner != np.arange(len(made)))
    found = [np.stack([copies, owner[copies]], axis=1)]
    distinct = np.sort(first)
    for band in range(HASHES // BAND):
        keys = _keys(made[distinct, band * BAND : (band + 1) * BAND])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        places = np.arange(len(keys))
        for lag in count(1):
            places = places[: np.searchsorted(places, len(keys) - lag)]
            places = places[keys[places] == keys[places + lag]]
            if not len(places):
                break
            pairs = np.stack([distinct[order[places + lag]], distinct[order[places]]], axis=1)
            for block in np.array_split(pairs, len(pairs) // 20_000 + 1):
                estimate = (made[block[:, 0]] == made[block[:, 1]]).mean(axis=1)
                found.append(block[estimate > above - SLACK])
    return [(text, earlier) for text, earlier in np.unique(np.concatenate(found), axis=0).tolist()]


def _keys(columns: "NDArray[np.uint32]") -> "NDArray[np.uint64]":
    """One 64-bit key for each row of hashes."""
    import numpy as np

    keys = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        keys = _mix(keys + column)
    return keys
