"""Which texts are nearly the same: Jaccard similarity of their sets of word shingles, every pair exactly.

Measure: Broder, On the resemblance and containment of documents (1997). Pairs are found through an inverted index, so
texts that share no shingle are never compared.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence


def shingles(text: str, words: int) -> frozenset[int]:
    """Hashes of the runs of `words` words of a text, lower-cased, without accents; a shorter text is one run."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))
    tokens = re.findall(r"\w+", plain)
    return frozenset(hash(tuple(tokens[i : i + words])) for i in range(max(1, len(tokens) - words + 1)))


def similar_pairs(sets: Sequence[frozenset[int]], above: float) -> Iterator[tuple[int, int, float]]:
    """Every pair (earlier, later, similarity) whose Jaccard similarity exceeds `above`, in order of the later one."""
    holders: dict[int, list[int]] = defaultdict(list)
    for later, own in enumerate(sets):
        shared = Counter(earlier for shingle in own for earlier in holders[shingle])
        for earlier, common in sorted(shared.items()):
            similarity = common / (len(own) + len(sets[earlier]) - common)
            if similarity > above:
                yield earlier, later, similarity
        for shingle in own:
            holders[shingle].append(later)
