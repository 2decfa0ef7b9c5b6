"""Containment similarity, which finds near-duplicates among short problems.

In a short text, one changed word or moved clause removes most of the shared five-token shingles. If one of two texts
has fewer than 20 content tokens, they are therefore also compared by content: all numbers, signs and variables must
agree, and the words of the shorter text must occur in the longer one.
"""

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SHORT = 20  # content tokens
MIN_CONTENT = 2
_MARKS = frozenset(".?,:;'\"")
# Question words, articles and prepositions, which do not distinguish problems.
_IDLE_WORDS = frozenset(
    "a an the of is are was be in on at to for what which how many much find compute evaluate calculate determine "
    "simplify express give state solve write does do did if then that this there it its and as your answer value "
    "please".split()
)


class Content(NamedTuple):
    """Content tokens of a problem.

    Attributes:
        tokens: Tokens in order, without punctuation and stop words.
        values: Numbers, commands, signs and single letters among them, sorted.
        counted: In prose, each number with the word after it, sorted; None in a text with formulas.
    """

    tokens: tuple[str, ...]
    values: tuple[str, ...]
    counted: tuple[tuple[str, str], ...] | None


def content(tokens: Sequence[str]) -> Content:
    """Returns the content of a tokenized problem.

    Example:
        >>> content("what is 2 + 2 ?".split()).tokens
        ('2', '+', '2')
    """
    kept = tuple(token for token in tokens if token not in _MARKS and token not in _IDLE_WORDS)
    values = tuple(sorted(token for token in kept if not _is_word(token)))
    counted = None
    if all(value.isdigit() or value == "%" for value in values):
        counted = tuple(sorted(pair for pair in itertools.pairwise((*kept, "")) if pair[0].isdigit()))
    return Content(kept, values, counted)


def containment(a: Content, b: Content) -> float:
    """Computes the containment similarity of two contents.

    The shorter content is contained in the longer one if its tokens occur there in the same order. In prose without
    formulas, clauses may change places: no token may be missing, and each number must precede the same word.

    Args:
        a: Content of one problem.
        b: Content of the other.

    Returns:
        The ratio of the token counts, in [0, 1]; 0 if neither content contains the other or both texts are long.

    Example:
        >>> tokens = [text.split() for text in ("compute 2 + 2 .", "what is 2 + 2 ?", "what is 2 + 3 ?")]
        >>> containment(content(tokens[0]), content(tokens[1])), containment(content(tokens[0]), content(tokens[2]))
        (1.0, 0.0)
    """
    short, long = sorted((a, b), key=lambda each: len(each.tokens))
    if not MIN_CONTENT <= len(short.tokens) < SHORT or short.values != long.values:
        return 0.0
    in_order = _is_subsequence(short.tokens, long.tokens)
    moved = short.counted is not None and short.counted == long.counted and _is_subset(short.tokens, long.tokens)
    return len(short.tokens) / len(long.tokens) if in_order or moved else 0.0


def _is_word(token: str) -> bool:
    return len(token) > 1 and token.isalpha()


def _is_subsequence(short: Iterable[str], long: Iterable[str]) -> bool:
    rest = iter(long)
    return all(token in rest for token in short)


def _is_subset(short: Iterable[str], long: Iterable[str]) -> bool:
    return not collections.Counter(short) - collections.Counter(long)
