"""Tests of near-duplicate detection."""

import random

import pytest

from mass_jax.tasks.base import Problem
from mass_jax.tasks.math import disjoint
from mass_jax.tasks.near_duplicates import jaccard, similarity


def problem(name, text):
    return Problem(str(name), text, "s", "a")


def random_texts(rng, count):
    """Generates texts over a small vocabulary, some of them edited copies of earlier ones."""
    texts = []
    for _ in range(count):
        if texts and rng.random() < 0.4:
            words = rng.choice(texts).split()
            for _ in range(rng.randrange(4)):
                words[rng.randrange(len(words))] = rng.choice("abcdefghij")
        else:
            words = rng.choices("abcdefghij", k=rng.randrange(1, 30))
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_disjoint_matches_exhaustive_search(seed, threshold):
    rng = random.Random(seed)
    problems = [problem(i, text) for i, text in enumerate(random_texts(rng, 120))]
    train, evaluation = problems[::2], problems[1::2]
    result = disjoint(train, evaluation, threshold)
    best = {p.id: max(similarity(p.problem, e.problem) for e in evaluation) for p in train}
    assert [p.id for p in result.kept] == [p.id for p in train if best[p.id] < threshold]
    assert {d.problem.id: d.similarity for d in result.dropped} == {k: s for k, s in best.items() if s >= threshold}
    assert all(similarity(d.problem.problem, d.partner.problem) == d.similarity for d in result.dropped)


def test_disjoint_normalizes_latex():
    dressed = problem("a", r"What is  $\left( \dfrac{1}{2} \right)$,  rounded?")
    plain = problem("b", r"what is (\frac{1}{2}), rounded?")
    (duplicate,) = disjoint([dressed], [plain]).dropped
    assert (duplicate.partner, duplicate.similarity) == (plain, 1.0)


def test_disjoint_compares_short_problems():
    result = disjoint([problem(1, "Compute 2+2"), problem(2, "Compute 2+3")], [problem(3, "compute $2 + 2$")])
    assert [p.id for p in result.kept] == ["2"]


def test_disjoint_drops_at_threshold():
    a, b = "a b c d e f g", "a b c d e f h"  # 3 shingles each, 2 of them shared: 2/4
    assert jaccard(a, b) == 0.5
    assert not disjoint([problem(1, a)], [problem(2, b)]).kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute $2+2$.", "What is 2 + 2?"),
        ("Factor $4x^2-1$.", "Please factor $4x^2 - 1$ completely."),
        (r"Evaluate $\log_2 8$.", r"Find the value of $\log_2 8$"),
        ("Tom has 3 pens, buys 4. How many?", "Tom has 3 pens and buys 4. How many does he have?"),
        ("2 birds and 6 storks sat there. 3 birds left.", "6 storks and 2 birds sat there. 3 birds left."),
        ("How many vertical asymptotes does it have?", "How many vertical asymptotes are there?"),
    ],
)
def test_disjoint_finds_reworded_problems(one, other):
    assert jaccard(one, other) < 0.5
    assert not disjoint([problem(1, one)], [problem(2, other)]).kept


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Compute $2+2$.", "Compute $2+3$."),
        ("Compute $4-3$.", "Compute $3-4$."),
        (r"Compute $\cos 150^\circ$.", r"Compute $\cos 45^\circ$."),
        (r"Compute $\sin 45^\circ$.", r"Compute $\cos 45^\circ$."),
        ("Tom has 3 pens, buys 4. How many?", "Ann has 3 eggs, buys 4. How many?"),
        ("2 birds and 6 storks sat there. 3 birds left.", "6 birds and 2 storks sat there. 3 birds left."),
        ("Find the area of a circle with radius $r$.", "Find the radius of a circle with area $r$."),
        ("Find $x$.", "Solve for $x$."),
    ],
)
def test_disjoint_keeps_template_siblings(one, other):
    assert disjoint([problem(1, one)], [problem(2, other)]).kept


@pytest.mark.parametrize(("count", "found"), [(10, 1.0), (30, 0.0)])
def test_containment_needs_short_problem(count, found):
    words = [f"{first}{second}" for first in "bdfgk" for second in ("al", "el", "il", "ol", "ul", "ar")][:count]
    one, other = (f"{' '.join(order)}. 5 pens" for order in (words, words[::-1]))
    assert similarity(one, other) == found


def test_disjoint_rejects_zero_threshold():
    with pytest.raises(ValueError, match="threshold=0"):
        disjoint([], [], 0)


def test_inline_delimiters_do_not_tell_problems_apart():
    assert similarity(r"Find \(\sqrt{81}\).", r"Find $\sqrt{81}$") == 1
    assert similarity(r"Find \(\sqrt{81}\).", r"Find $\sqrt{64}$") < 0.5
