r"""Chains of equalities such as `x = 2 + 3 = 5` and `1/3 \approx 0.33`: consistency and stated values."""

import itertools
import re
from collections.abc import Callable

from mass_jax.tasks.grading.judge import Judge, rational
from mass_jax.tasks.grading.relations import EQUALITIES, is_constant, is_name, variables
from mass_jax.tasks.grading.values import Relation, Scalar, Value

_COMMAND = re.compile(r"\\[a-zA-Z]+")
_COEFFICIENT = re.compile(r"(?<![\^_{])[0-9]")  # a digit that is neither an exponent nor an index
_WORD = re.compile("[a-z]{3}")
Same = Callable[[Value, Value, Judge], bool]


def is_chain(value: Value) -> bool:
    """Returns whether a value is a relation whose signs are all = or ≈."""
    return isinstance(value, Relation) and EQUALITIES.issuperset(value.signs)


def holds(chain: Relation, judge: Judge, same: Same) -> bool:
    """Returns whether a chain is consistent, as far as its constants and identities show.

    Neighboring constants must be equal, or close if ≈ is between them. Expressions that are neither constants nor names
    must be equal to each other. An equation such as `2x = 4` or `3x + 2y = 0` states no value and is rejected.

    Args:
        chain: A relation whose signs are all = or ≈.
        judge: Compares expressions.
        same: Compares two values.
    """
    constants = [i for i, part in enumerate(chain.parts) if is_constant(part)]
    for i, j in itertools.pairwise(constants):
        a, b = chain.parts[i], chain.parts[j]
        if "approx" in chain.signs[i:j]:
            if not (isinstance(a, Scalar) and isinstance(b, Scalar) and judge.close(a.latex, b.latex)):
                return False
        elif not (same(a, b, judge) or same(b, a, judge)):
            return False
    terms = [part for part in chain.parts if not is_constant(part) and not is_name(part)]
    if any(isinstance(term, Scalar) and _WORD.search(_COMMAND.sub(" ", term.latex)) for term in terms):
        return False  # "log" is a word, not a product of letters
    unnamed = constants and len(terms) + len(constants) == len(chain.parts)
    if unnamed and not all(_may_be_asked(term, chain.parts[constants[0]]) for term in terms):
        return False
    return all(same(terms[0], term, judge) for term in terms[1:])


def _may_be_asked(term: Value, constant: Value) -> bool:
    """Returns whether a problem may ask for an expression: x + y or ab, but not 2x, 3x + 2y or a zero constant."""
    if not isinstance(term, Scalar):
        return True
    zero = isinstance(constant, Scalar) and rational(constant.latex) == 0
    return not zero and len(variables(term.latex)) > 1 and not _COEFFICIENT.search(term.latex)


def said(chain: Relation) -> tuple[Value, ...]:
    """Returns the values that a chain states: the exact one first, then its approximations.

    Example:
        >>> from mass_jax.tasks.grading.answer import read
        >>> said(read(r"x = \\\\frac{4}{2} = 2")), said(read("1/3 \\\\approx 0.33"))
        ((Scalar(latex='2', unit=''),), (Scalar(latex='1/3', unit=''), Scalar(latex='0.33', unit='')))
    """
    groups: list[list[Value]] = [[chain.parts[0]]]
    for sign, part in zip(chain.signs, chain.parts[1:], strict=True):
        if sign == "approx":
            groups.append([])
        groups[-1].append(part)
    stated = []
    for group in groups:
        best = [part for part in group if is_constant(part)] or [part for part in group if not is_name(part)]
        stated += best[-1:]
    return tuple(stated)


def says(chain: Relation, gold: Value, judge: Judge, same: Same) -> bool:
    """Returns whether a chain states the gold answer. An approximation counts only if the gold answer is rounded.

    Args:
        chain: A relation for which `holds` is true.
        gold: Gold answer.
        judge: Compares expressions.
        same: Compares two values.
    """
    stated = said(chain)
    if not stated:
        return False
    if same(gold, stated[0], judge):
        return True
    rounded = isinstance(gold, Scalar) and "." in gold.latex and rational(gold.latex) is not None
    return rounded and any(same(gold, value, judge) for value in stated[1:])


def collapsed(chain: Relation) -> Relation:
    """Returns a chain as one equation between its first part and its stated value."""
    stated = said(chain)
    if len(chain.parts) == 2 or not stated or chain.parts[0] == stated[0]:
        return Relation(chain.parts, ("=",)) if len(chain.parts) == 2 else chain
    return Relation((chain.parts[0], stated[0]), ("=",))
