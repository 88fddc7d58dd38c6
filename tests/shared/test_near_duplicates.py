"""near_duplicates: what the indexes find against every pair compared one by one."""

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.near_duplicates import Match, candidates, closest_earlier, exceeds, shingles, signatures, similarity

TEXTS = st.lists(st.lists(st.sampled_from("uno dos tres cuatro".split()), max_size=9).map(" ".join), max_size=9)


def runs(text: str, words: int) -> set[tuple[str, ...]]:
    tokens = text.split()
    if len(tokens) <= words:
        return {tuple(tokens)}
    return {tuple(tokens[start : start + words]) for start in range(len(tokens) - words + 1)}


def jaccard(texts: list[str], words: int) -> dict[tuple[int, int], float]:
    """The similarity of every pair (later, earlier), compared one by one."""
    sets = [runs(text, words) for text in texts]
    return {(b, a): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in combinations(range(len(sets)), 2)}


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.integers(1, 4), st.sampled_from([0.01, 0.3, 0.5, 1.0]))
def test_the_closest_earlier_text_is_that_of_a_jaccard_over_all_pairs(
    texts: list[str], words: int, above: float
) -> None:
    index = jaccard(texts, words)
    expected = []
    for later in range(len(texts)):
        likeness, place = max(((index[later, earlier], -earlier) for earlier in range(later)), default=(0.0, 0))
        if likeness > above or likeness == 1:
            expected.append(Match(later, -place, likeness))
    assert list(closest_earlier([shingles(text, words) for text in texts], above)) == expected


@settings(deadline=None, max_examples=300)
@given(TEXTS, st.integers(1, 4))
def test_the_similarity_of_two_texts_is_their_jaccard_index(texts: list[str], words: int) -> None:
    sets = [shingles(text, words) for text in texts]
    for (one, other), index in jaccard(texts, words).items():
        assert similarity(sets[one], sets[other]) == similarity(sets[other], sets[one]) == index


def family(rows: int, changed: range) -> list[str]:
    """Unlike texts of 60 words; after every one a copy in which some words in a row are others."""
    draw = random.Random(7)
    texts = []
    for row in range(rows):
        words = [str(draw.randrange(10**6)) for _ in range(60)]
        other = list(words)
        for place in range(10, 10 + changed[row % len(changed)]):
            other[place] = f"otra{place}"
        texts += [" ".join(words), " ".join(other)]
    return texts


def test_candidates_hold_almost_every_pair_above_the_threshold_and_few_others() -> None:
    texts = family(500, range(1, 18))  # 55 of 61 down to 39 of 77 runs stay shared: 0.90 to 0.51
    index = {(2 * row + 1, 2 * row): similarity(shingles(texts[2 * row], 3), shingles(texts[2 * row + 1], 3))
             for row in range(500)}  # fmt: skip
    found = candidates(signatures(texts, 3), 0.5)
    assert found == sorted(set(found))
    above = {pair for pair, likeness in index.items() if likeness > 0.5}
    assert len(above) == 500
    assert len(above & set(found)) / len(above) > 0.99
    assert set(found) <= index.keys()


def test_copies_are_paired_with_the_first_of_their_kind_alone() -> None:
    made = signatures(["uno dos tres cuatro", "cinco seis siete", *["uno dos tres cuatro"] * 3, "ocho nueve"], 3)
    assert candidates(made, 0.5) == [(2, 0), (3, 0), (4, 0)]


def test_a_signature_estimates_the_similarity_and_does_not_depend_on_its_neighbours() -> None:
    texts = family(40, range(1, 30))
    made = signatures(texts, 3)
    assert made.shape == (80, 128)
    assert (made[10:12] == signatures(texts[10:12], 3)).all()
    errors = [
        (made[row] == made[row + 1]).mean() - similarity(shingles(texts[row], 3), shingles(texts[row + 1], 3))
        for row in range(0, 80, 2)
    ]
    assert abs(sum(errors) / 40) < 0.03  # unbiased: one deviates by 0.044
    assert max(map(abs, errors)) < 0.18


def test_the_signature_of_a_text_shorter_than_a_run_is_its_own() -> None:
    made = signatures(["", "uno", "uno dos", "uno", "dos uno"], 3)
    assert (made[1] == made[3]).all()
    assert len({row.tobytes() for row in made}) == 4


def test_a_similarity_at_the_bar_does_not_exceed_it() -> None:
    assert not exceeds(0.5, 0.5)
    assert exceeds(0.51, 0.5)
    assert exceeds(1.0, 1.0)


def test_case_accents_and_punctuation_tell_no_texts_apart() -> None:
    assert shingles("¡Facturación, ELECTRÓNICA: ya!", 2) == shingles("facturacion electronica ya", 2)
    # The same letter, composed and decomposed.
    assert shingles("c\u00f3digo", 1) == shingles("co\u0301digo", 1)


def test_the_order_of_words_tells_texts_apart() -> None:
    assert not shingles("uno dos tres", 2) & shingles("tres dos uno", 2)


def test_a_text_shorter_than_a_shingle_is_one_run() -> None:
    assert len(shingles("una frase corta", 20)) == 1
    assert shingles("una frase corta", 20) != shingles("otra frase corta", 20)
    assert len(shingles("", 3)) == 1
