r"""Exact and near-duplicate problems of two sets, found by an inverted index.

Two problems are exact duplicates if their texts are equal after normalization, and near-duplicates if the Jaccard
similarity of their sets of five-token shingles is at least 0.5:

.. math:: J(A, B) = |A \cap B| / |A \cup B|

By this measure, the MATH training set contains 59 near-duplicates of MATH-500. Short problems, which shingles miss, are
also compared by containment. `docs/reference/near_duplicates.md` reports the results of both measures.
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
    """A training problem that the evaluation set also contains.

    Attributes:
        problem: The training problem.
        partner: The most similar evaluation problem.
        similarity: Similarity of the two, in (0, 1].
    """

    problem: Problem
    partner: Problem
    similarity: float


class Disjoint(NamedTuple):
    """Result of `disjoint`.

    Attributes:
        kept: Training problems without a duplicate in the evaluation set, in order.
        dropped: The other training problems with their partners.
    """

    kept: list[Problem]
    dropped: list[Duplicate]


def tokens(text: str) -> list[str]:
    r"""Splits a text into lower-case words, numbers, LaTeX commands and signs; drops dollar signs and spacing commands.

    Example:
        >>> tokens(r"Find $\tan 3 \theta$.")
        ['find', '\\tan', '3', '\\theta', '.']
    """
    text = re.sub(r"\$|\\[!,;: ()]|\\(?:left|right|displaystyle)(?![a-zA-Z])", " ", text).replace(r"\dfrac", r"\frac")
    return _TOKEN.findall(text.lower())


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Returns the set of runs of five tokens; a shorter text is one shingle."""
    return _shingles(tokens(text))


def jaccard(a: str, b: str) -> float:
    """Computes the Jaccard similarity of the shingles of two texts, in [0, 1].

    Example:
        >>> jaccard("one two three four five six", "One two three four five seven")
        0.3333333333333333
    """
    return _jaccard(shingles(a), shingles(b))


def similarity(a: str | Sequence[str], b: str | Sequence[str]) -> float:
    """Computes the similarity of two texts: the larger of shingle similarity and containment.

    Args:
        a: Text, or its tokens.
        b: Text, or its tokens.

    Returns:
        A similarity in [0, 1].

    Example:
        >>> similarity("Compute $2+2$.", "What is 2 + 2?"), similarity("Compute $2+2$.", "Compute $2+3$.")
        (1.0, 0.0)
    """
    x, y = (tokens(each) if isinstance(each, str) else each for each in (a, b))
    return max(_jaccard(_shingles(x), _shingles(y)), containment(content(x), content(y)))


def _shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def _jaccard(x: frozenset[tuple[str, ...]], y: frozenset[tuple[str, ...]]) -> float:
    return len(x & y) / len(x | y)


def disjoint(train: Iterable[Problem], evaluation: Sequence[Problem], threshold: float = 0.5) -> Disjoint:
    """Removes from `train` the problems that `evaluation` also contains.

    Args:
        train: Training problems.
        evaluation: Evaluation problems; only problem texts are compared.
        threshold: Minimum similarity at which a training problem is dropped, in (0, 1].

    Returns:
        The kept problems, and the dropped ones with their most similar partner (the first of several).

    Raises:
        ValueError: If the threshold is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be in (0, 1]")
    tokenized = [tokens(problem.problem) for problem in evaluation]
    sets, contents = [_shingles(words) for words in tokenized], [content(words) for words in tokenized]
    index: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    by_values: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    for i, shingle_set in enumerate(sets):
        for shingle in shingle_set:
            index[shingle].append(i)
        by_values[contents[i].values].append(i)
    result = Disjoint([], [])
    for problem in train:
        words = tokens(problem.problem)
        own_set, own_content = _shingles(words), content(words)
        shared = collections.Counter(i for shingle in own_set for i in index.get(shingle, ()))
        similarities = {i: count / (len(own_set) + len(sets[i]) - count) for i, count in shared.items()}
        for i in by_values.get(own_content.values, ()):
            similarities[i] = max(similarities.get(i, 0.0), containment(own_content, contents[i]))
        nearest = max(sorted(similarities), key=similarities.__getitem__, default=None)
        if nearest is not None and similarities[nearest] >= threshold:
            result.dropped.append(Duplicate(problem, evaluation[nearest], similarities[nearest]))
        else:
            result.kept.append(problem)
    return result
