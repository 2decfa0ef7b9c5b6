"""When two answers are the same: structure by structure, down to expressions, which a judge decides.

In the training process the judge knows rational numbers only (`judge.RATIONALS`), which settles most answers at once;
in a worker process it is symbolic (`mass_jax.tasks.math.symbolic`). Both walk the same structures.
"""

import re
from fractions import Fraction

from mass_jax.tasks.math.answer import Based, Many, Matrix, Ordered, Relation, Scalar, Value, Words, word_form
from mass_jax.tasks.math.judge import Judge, compact, rational

_FLIP = {"=": "=", "ne": "ne", "<": ">", ">": "<", "le": "ge", "ge": "le"}


def same(gold: Value, answer: Value, judge: Judge) -> bool:
    """Whether `answer` says what `gold` says. Not symmetric: what a problem fixes (name, unit, base) may be left out.

    Args:
        gold, answer: from `read`.
        judge: decides expressions.

    >>> from mass_jax.tasks.math.answer import read
    >>> from mass_jax.tasks.math.judge import RATIONALS
    >>> same(read("-1,1"), read(r"x=1 \\text{ or } x=-1"), RATIONALS)
    True
    >>> same(read("(0,1]"), read("[0,1]"), RATIONALS)
    False
    """
    if _variable(gold) and _variable(answer) and _variable(gold) != _variable(answer):
        return False  # x > 3 against y > 3; an interval names no variable and goes with both
    gold, answer = _as_interval(gold), _as_interval(answer)
    if isinstance(gold, Ordered):
        answer = _as_tuple(answer)
    elif isinstance(answer, Ordered):
        gold = _as_tuple(gold)
    if isinstance(gold, Words):
        return _word_form_of(answer) == gold.text
    if isinstance(answer, Words):
        return isinstance(gold, Scalar) and _letters(gold.latex) == answer.text.replace(" ", "")
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relation(gold, answer, judge)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _same_based(gold, answer)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _same_scalar(gold, answer, judge)
    if isinstance(gold, Many) and isinstance(answer, Many):
        return gold.union == answer.union and _same_unordered(gold.items, answer.items, judge)
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        return gold.brackets == answer.brackets and _same_ordered(gold.items, answer.items, judge)
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        return _same_matrix(gold, answer, judge)
    return False


def _same_ordered(golds: tuple[Value, ...], answers: tuple[Value, ...], judge: Judge) -> bool:
    return len(golds) == len(answers) and all(same(g, a, judge) for g, a in zip(golds, answers, strict=True))


def _same_unordered(golds: tuple[Value, ...], answers: tuple[Value, ...], judge: Judge) -> bool:
    """Whether the items pair off; sameness is transitive enough here that taking the first partner is right."""
    if len(golds) != len(answers):
        return False
    left = list(answers)
    for gold in golds:
        partner = next((i for i, answer in enumerate(left) if gold == answer), None)
        if partner is None:
            partner = next((i for i, answer in enumerate(left) if same(gold, answer, judge)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _same_matrix(gold: Matrix, answer: Matrix, judge: Judge) -> bool:
    gold_rows, answer_rows = _scaled(gold), _scaled(answer)
    return len(gold_rows) == len(answer_rows) and all(
        _same_ordered(g, a, judge) for g, a in zip(gold_rows, answer_rows, strict=True)
    )


def _scaled(matrix: Matrix) -> tuple[tuple[Value, ...], ...]:
    """Rows with the factor multiplied into the cells."""
    if matrix.factor == "1":
        return matrix.rows
    return tuple(
        tuple(Scalar(rf"({matrix.factor}) \cdot ({c.latex})") if isinstance(c, Scalar) else c for c in row)
        for row in matrix.rows
    )


def _same_scalar(gold: Scalar, answer: Scalar, judge: Judge) -> bool:
    if gold.unit == answer.unit:
        return judge.equal(gold.latex, answer.latex)
    if "percent" in (gold.unit, answer.unit) and "" in (gold.unit, answer.unit):
        return _same_percentage(gold, answer, judge)
    return "" in (gold.unit, answer.unit) and judge.equal(gold.latex, answer.latex)


def _same_percentage(gold: Scalar, answer: Scalar, judge: Judge) -> bool:
    """20 % against a bare number: 0.2 is its value, and 20 is it too where the problem asked for percent.

    A bare number of at most 1 is never read as so many percent: 0.2 is not 0.2 %.
    """
    marked, bare = (gold, answer) if gold.unit == "percent" else (answer, gold)
    if judge.equal(
        rf"\frac{{{marked.latex}}}{{100}}" if rational(marked.latex) is None else _hundredth(marked), bare.latex
    ):
        return True
    number = rational(bare.latex)
    return (number is None or abs(number) > 1) and judge.equal(marked.latex, bare.latex)


def _hundredth(scalar: Scalar) -> str:
    value = (rational(scalar.latex) or Fraction(0)) / 100
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _same_based(gold: Value, answer: Value) -> bool:
    """Digits must agree, and the base if both name one; a base that only the answer names could be another."""
    if not isinstance(gold, Based):
        return False
    if isinstance(answer, Based):
        return gold == answer
    return isinstance(answer, Scalar) and not answer.unit and compact(answer.latex) == gold.digits


def _same_relation(gold: Value, answer: Value, judge: Judge) -> bool:
    if isinstance(gold, Relation) and isinstance(answer, Relation):
        if len(gold.parts) == len(answer.parts) == 2 and _all_scalars(gold, answer):
            return _same_pair(gold, answer, judge)
        return gold.signs == answer.signs and _same_ordered(gold.parts, answer.parts, judge)
    if isinstance(answer, Relation):
        return set(answer.signs) == {"="} and not _is_false(answer) and same(gold, _assigned(answer), judge)
    if not isinstance(gold, Relation) or set(gold.signs) != {"="}:
        return False
    if _is_name(gold.parts[0]) or _is_name(gold.parts[-1]):
        return same(_assigned(gold), answer, judge)
    # 0.56 = 56 %: constants that say the same twice
    constant = all(isinstance(part, Scalar) and rational(part.latex) is not None for part in gold.parts)
    return constant and any(same(part, answer, judge) for part in gold.parts)


def _same_pair(gold: Relation, answer: Relation, judge: Judge) -> bool:
    """Two-sided relations, turned to the same sign."""
    sign, turned = gold.signs[0], answer.signs[0]
    (gl, gr), (al, ar) = (_latex_pair(gold), _latex_pair(answer))
    if turned != sign and _FLIP[turned] == sign:
        al, ar, turned = ar, al, sign
    if sign != turned:
        return False
    symmetric = sign in ("=", "ne")
    if (_quick(gl, al) and _quick(gr, ar)) or (symmetric and _quick(gl, ar) and _quick(gr, al)):
        return True
    return judge.equal_relations((gl, gr), (al, ar), symmetric)


def _assigned(relation: Relation) -> Value:
    """What `x = 5` says: 5; and of a chain of equalities the last part."""
    if _is_name(relation.parts[-1]) and not _is_name(relation.parts[0]):
        return relation.parts[0]
    return relation.parts[-1]


def _is_false(relation: Relation) -> bool:
    """Whether plain numbers are said to be equal that are not, as in 42 = 43."""
    plain = [part for part in relation.parts if isinstance(part, Scalar) and not part.unit]
    return len({rational(part.latex) for part in plain} - {None}) > 1


def _variable(value: Value) -> str:
    """The variable of a relation that reads as an interval; "" for anything else."""
    if not isinstance(value, Relation) or _as_interval(value) is value:
        return ""
    return next(part.latex for part in value.parts if isinstance(part, Scalar) and _is_name(part))


def _is_name(value: Value) -> bool:
    """A variable, a function of one, or a tuple of variables: what an answer is assigned to."""
    if isinstance(value, Ordered):
        return all(_is_name(item) for item in value.items)
    return isinstance(value, Scalar) and bool(
        re.fullmatch(r"(?!\\pi|\\infty)\\?[A-Za-z]+(?:_\{?\w+\}?)?'?\s*(?:\(\s*\\?[A-Za-z]+\s*\))?", value.latex)
    )


def _as_interval(value: Value) -> Value:
    """`x > 3` and `-2 < x <= 5` as intervals, so that they compare with those; anything else as it is."""
    if not isinstance(value, Relation) or not {"<", ">", "le", "ge"}.issuperset(value.signs):
        return value
    parts, signs = value.parts, value.signs
    if all(sign in (">", "ge") for sign in signs):
        parts, signs = parts[::-1], tuple(_FLIP[sign] for sign in reversed(signs))
    if not all(sign in ("<", "le") for sign in signs) or not _all_scalars(value):
        return value
    low, high = Scalar(r"-\infty"), Scalar(r"\infty")
    opened, closed = "(" if signs[0] == "<" else "[", ")" if signs[-1] == "<" else "]"
    if len(parts) == 3 and _is_name(parts[1]):
        return Ordered(opened + closed, (parts[0], parts[2]))
    if len(parts) == 2 and _is_name(parts[0]) and not _is_name(parts[1]):
        return Ordered("(" + closed, (low, parts[1]))
    if len(parts) == 2 and _is_name(parts[1]) and not _is_name(parts[0]):
        return Ordered(opened + ")", (parts[0], high))
    return value


def _as_tuple(value: Value) -> Value:
    """`x = 3, y = -1` as (3,-1), where names come in the order of the alphabet; anything else as it is."""
    if not isinstance(value, Many) or value.union:
        return value
    equations = [item for item in value.items if isinstance(item, Relation) and item.signs == ("=",)]
    names = [name.latex for e in equations if isinstance(name := e.parts[0], Scalar) and _is_name(name)]
    if len(names) < len(value.items) or names != sorted(set(names)):
        return value
    return Ordered("()", tuple(equation.parts[1] for equation in equations))


def _all_scalars(*relations: Relation) -> bool:
    return all(isinstance(part, Scalar) for relation in relations for part in relation.parts)


def _latex_pair(relation: Relation) -> tuple[str, str]:
    left, right = relation.parts
    assert isinstance(left, Scalar)
    assert isinstance(right, Scalar)
    return left.latex, right.latex


def _word_form_of(value: Value) -> str:
    if isinstance(value, Words):
        return value.text
    return word_form(_letters(value.latex)) if isinstance(value, Scalar) and not value.unit else ""


def _letters(latex: str) -> str:
    text = re.sub(r"\\text|[{}() ]", "", latex)
    return text.lower() if text.isalpha() else ""


def _quick(a: str, b: str) -> bool:
    return compact(a) == compact(b)
