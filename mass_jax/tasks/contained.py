"""Near-duplicates among short problems, which shingles of five tokens miss.

In a short text, a changed word or a moved clause takes away most of the shared shingles. Two texts, one of them with
fewer than 20 tokens that tell something, are also compared by what they hold: all numbers, signs and variables must be
the same, and the words of the one must be among the words of the other.
"""

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SHORT = 20  # tokens, without marks and idle words
MIN_CONTENT = 2
_MARKS = frozenset(".?,:;'\"")
# Words that only ask, and articles and prepositions; they tell no two problems apart.
_IDLE_WORDS = frozenset(
    "a an the of is are was be in on at to for what which how many much find compute evaluate calculate determine "
    "simplify express give state solve write does do did if then that this there it its and as your answer value "
    "please".split()
)


class Content(NamedTuple):
    """What tells a problem from others.

    Args:
        tokens: without marks and idle words, in order.
        values: numbers, commands, signs and single letters among them, sorted.
        counted: in prose, each number with the word after it, sorted; None in a text with formulas.
    """

    tokens: tuple[str, ...]
    values: tuple[str, ...]
    counted: tuple[tuple[str, str], ...] | None


def content(tokens: Sequence[str]) -> Content:
    """What a tokenized problem holds.

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
    """How much of the longer content the shorter one is, in [0, 1]; 0 if it is not contained or both texts are long.

    The shorter is contained if its tokens come in the same order in the longer. In prose without formulas, clauses may
    change places: there it is enough that each number counts the same thing and no token is missing.

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
