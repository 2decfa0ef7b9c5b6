"""Problems of two sets that are the same or nearly so, found by an inverted index.

Exact: equal after normalization. Near: Jaccard similarity |A n B| / |A u B| of the sets of 5-token shingles at least
0.5, the measure by which MATH's training problems hold 59 near-duplicates of MATH-500. Short problems, which shingles
miss, are also compared by containment. `docs/near_duplicates.md` lists what both find.
"""

import collections
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mass_jax.tasks.base import Problem
from mass_jax.tasks.contained import containment, content

SHINGLE = 5
_TOKEN = re.compile(r"\\[a-z]+|[a-z]+|\d+|[^\sa-z\d]")


class Duplicate(NamedTuple):
    """A training problem that the evaluation set has too, its nearest partner there, and how alike they are."""

    problem: Problem
    partner: Problem
    similarity: float


class Disjoint(NamedTuple):
    """Training problems kept, and those dropped."""

    kept: list[Problem]
    dropped: list[Duplicate]


def tokens(text: str) -> list[str]:
    r"""Words, numbers, commands and signs, without case, dollar signs and spacing commands.

    >>> tokens(r"Find $\tan 3 \theta$.")
    ['find', '\\tan', '3', '\\theta', '.']
    """
    text = re.sub(r"\$|\\[!,;: ]|\\(?:left|right|displaystyle)(?![a-zA-Z])", " ", text).replace(r"\dfrac", r"\frac")
    return _TOKEN.findall(text.lower())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The set of runs of five tokens; a shorter text is one shingle."""
    return _shingles(tokens(text))


def jaccard(a: str, b: str) -> float:
    """Similarity of the shingles of two texts, in [0, 1]; 1 if they are equal after normalization.

    >>> jaccard("one two three four five six", "One two three four five seven")
    0.3333333333333333
    """
    return _jaccard(shingles(a), shingles(b))


def similarity(a: str | Sequence[str], b: str | Sequence[str]) -> float:
    """Similarity of two texts, in [0, 1]: of their shingles or, if one is short, by containment.

    Args:
        a, b: texts, or the tokens of texts.

    >>> similarity("Compute $2+2$.", "What is 2 + 2?"), similarity("Compute $2+2$.", "Compute $2+3$.")
    (1.0, 0.0)
    """
    x, y = (tokens(each) if isinstance(each, str) else each for each in (a, b))
    return max(_jaccard(_shingles(x), _shingles(y)), containment(content(x), content(y)))


def _shingles(found: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(found[i : i + SHINGLE]) for i in range(max(1, len(found) - SHINGLE + 1)))


def _jaccard(x: frozenset[tuple[str, ...]], y: frozenset[tuple[str, ...]]) -> float:
    return len(x & y) / len(x | y)


def disjoint(train: Iterable[Problem], evaluation: Sequence[Problem], threshold: float = 0.5) -> Disjoint:
    """Removes from `train` the problems that `evaluation` has.

    Args:
        train, evaluation: problems; only their problem texts are compared.
        threshold: least similarity at which a training problem is dropped, in (0, 1].

    Returns:
        The kept in order, and the dropped with their most similar partner (the first of several).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} is no similarity above 0; give one in (0, 1]")
    tokenized = [tokens(problem.problem) for problem in evaluation]
    sets, contents = [_shingles(found) for found in tokenized], [content(found) for found in tokenized]
    index: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    by_values: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for i, own_set in enumerate(sets):
        for shingle in own_set:
            index[shingle].append(i)
        by_values[contents[i].values].append(i)
    result = Disjoint([], [])
    for problem in train:
        found = tokens(problem.problem)
        mine, own = _shingles(found), content(found)
        shared = collections.Counter(i for shingle in mine for i in index.get(shingle, ()))
        scores = {i: count / (len(mine) + len(sets[i]) - count) for i, count in shared.items()}
        for i in by_values.get(own.values, ()):
            scores[i] = max(scores.get(i, 0.0), containment(own, contents[i]))
        nearest = max(sorted(scores), key=scores.__getitem__, default=None)
        if nearest is not None and scores[nearest] >= threshold:
            result.dropped.append(Duplicate(problem, evaluation[nearest], scores[nearest]))
        else:
            result.kept.append(problem)
    return result
