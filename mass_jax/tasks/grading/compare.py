"""Comparison of parsed answers: recursive over their structure, with a `Judge` for the expressions.

The main process uses a judge for rational numbers only (`judge.RATIONALS`), which decides most answers immediately;
worker processes use a symbolic one (`mass_jax.tasks.grading.symbolic`).
"""

from fractions import Fraction

from mass_jax.tasks.grading.answer import as_ratio
from mass_jax.tasks.grading.chains import collapsed, holds, is_chain, says
from mass_jax.tasks.grading.judge import Judge, compact, fraction_latex, rational, surely_defined
from mass_jax.tasks.grading.leaf import word_form
from mass_jax.tasks.grading.relations import FLIP, as_set, as_tuple, is_name, relates_variables, same_name, variable
from mass_jax.tasks.grading.units import may_be_left_out, with_unit_of
from mass_jax.tasks.grading.values import Based, Clock, Many, Matrix, Ordered, Ratio, Relation, Scalar, Value, Words

Values = tuple[Value, ...]


def same(gold: Value, answer: Value, judge: Judge) -> bool:
    """Returns whether an answer agrees with the gold answer. Not symmetric: it may omit a name, unit or base of `gold`.

    Args:
        gold: Gold answer from `read`.
        answer: Answer from `read`.
        judge: Compares expressions.

    Raises:
        Undecided: If the judge cannot compare some expressions.

    Example:
        >>> from mass_jax.tasks.grading.answer import read
        >>> from mass_jax.tasks.grading.judge import RATIONALS
        >>> same(read("-1,1"), read(r"x=1 \\text{ or } x=-1"), RATIONALS)
        True
        >>> same(read("(0,1]"), read("[0,1]"), RATIONALS)
        False
    """
    if isinstance(gold, Relation) and isinstance(answer, Relation) and relates_variables(gold):
        return _same_relation(gold, answer, judge)
    if variable(gold) and variable(answer) and variable(gold) != variable(answer):
        return False  # x > 3 differs from y > 3, but an interval agrees with either
    sets = as_set(gold), as_set(answer)
    if not (isinstance(sets[0], Relation) or isinstance(sets[1], Relation)):  # otherwise compare both as relations
        gold, answer = sets
    if isinstance(gold, Ordered):
        answer = _as_vector(as_tuple(answer), gold)
    elif isinstance(answer, Ordered):
        gold = _as_vector(as_tuple(gold), answer)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _same_relation(gold, answer, judge)
    if isinstance(gold, Words):
        return _word_form_of(answer) == gold.text
    if isinstance(answer, Words):
        return isinstance(gold, Scalar) and _letters(gold.latex) == answer.text.replace(" ", "")
    if isinstance(gold, Many) and isinstance(answer, Many):
        return gold.union == answer.union and _same_unordered(gold.items, answer.items, judge)
    if isinstance(gold, Ordered) and isinstance(answer, Ordered):
        return gold.brackets == answer.brackets and _same_ordered(gold.items, answer.items, judge)
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        return _same_matrix(gold, answer, judge)
    return _same_number(gold, answer, judge)


def _same_number(gold: Value, answer: Value, judge: Judge) -> bool:
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _same_based(gold, answer)
    if isinstance(gold, Clock) or isinstance(answer, Clock):
        return _same_clock(gold, answer, judge)
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _same_ratio(gold, answer, judge)
    return isinstance(gold, Scalar) and isinstance(answer, Scalar) and _same_scalar(gold, answer, judge)


def _same_ordered(golds: Values, answers: Values, judge: Judge) -> bool:
    return len(golds) == len(answers) and all(same(g, a, judge) for g, a in zip(golds, answers, strict=True))


def _same_unordered(golds: Values, answers: Values, judge: Judge) -> bool:
    """Returns whether the items can be paired, greedily: equality is close enough to transitive for that."""
    if len(golds) != len(answers):
        return False
    if Words("...") in golds:
        return _same_ordered(golds, answers, judge)
    wanted, left = list(golds), list(answers)
    for gold in golds:  # match plain numbers first, which avoids comparing all pairs
        key = _key(gold)
        partner = next((i for i, answer in enumerate(left) if key is not None and _key(answer) == key), None)
        if partner is not None:
            wanted.remove(gold)
            del left[partner]
    for gold in wanted:
        key = _key(gold)
        open_to = [i for i, answer in enumerate(left) if key is None or _key(answer) is None]
        partner = next((i for i in open_to if same(gold, left[i], judge)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _key(value: Value) -> object:
    """Returns an exact key of a plain number or a tuple of such; None for other values."""
    if isinstance(value, Scalar):
        return rational(value.latex) if not value.unit else None
    if isinstance(value, Ordered):
        keys = tuple(_key(item) for item in value.items)
        return None if None in keys else (value.brackets, keys)
    return None


def _same_matrix(gold: Matrix, answer: Matrix, judge: Judge) -> bool:
    gold_rows, answer_rows = _scaled(gold), _scaled(answer)
    return len(gold_rows) == len(answer_rows) and all(
        _same_ordered(g, a, judge) for g, a in zip(gold_rows, answer_rows, strict=True)
    )


def _scaled(matrix: Matrix) -> tuple[Values, ...]:
    """Returns the rows with the factor multiplied into the cells."""
    if matrix.factor == "1":
        return matrix.rows
    return tuple(
        tuple(Scalar(rf"({matrix.factor}) \cdot ({c.latex})") if isinstance(c, Scalar) else c for c in row)
        for row in matrix.rows
    )


def _as_vector(value: Value, other: Ordered) -> Value:
    """Returns a matrix of one row or column as a tuple if the other answer is a tuple."""
    if not isinstance(value, Matrix) or other.brackets != "()":
        return value
    rows = _scaled(value)
    if len(rows) == 1:
        return Ordered("()", rows[0])
    return Ordered("()", tuple(row[0] for row in rows)) if len(rows[0]) == 1 else value


def _same_scalar(gold: Scalar, answer: Scalar, judge: Judge) -> bool:
    if gold.unit == answer.unit:
        return judge.equal(gold.latex, answer.latex)
    if gold.unit and answer.unit:
        return False
    if "percent" in (gold.unit, answer.unit):
        return _same_percentage(gold, answer, judge)
    unit = gold.unit or answer.unit
    bare = with_unit_of((answer if gold.unit else gold).latex, unit)  # 5 m is in meters if the other answer is
    if bare is not None:
        return judge.equal(gold.latex if gold.unit else bare, bare if gold.unit else answer.latex)
    return may_be_left_out(unit) and judge.equal(gold.latex, answer.latex)


def _same_percentage(gold: Scalar, answer: Scalar, judge: Judge) -> bool:
    """Compares 20 % with a bare number: 0.2 is its value; 20 is accepted, since problems may ask for the percentage.

    A bare number of at most 1 is never a percentage: 0.2 is not 0.2 %.
    """
    marked, bare = (gold, answer) if gold.unit == "percent" else (answer, gold)
    hundredth = rf"\frac{{{marked.latex}}}{{100}}" if rational(marked.latex) is None else _hundredth(marked)
    if judge.equal(hundredth, bare.latex):
        return True
    number = rational(bare.latex)
    return (number is None or abs(number) > 1) and judge.equal(marked.latex, bare.latex)


def _hundredth(scalar: Scalar) -> str:
    return fraction_latex((rational(scalar.latex) or Fraction(0)) / 100)


def _same_based(gold: Value, answer: Value) -> bool:
    """Compares the digits and, if the answer names one, the base; a base that only the answer names is not accepted."""
    if not isinstance(gold, Based):
        return False
    if isinstance(answer, Based):
        return gold == answer
    return isinstance(answer, Scalar) and not answer.unit and compact(answer.latex) == gold.digits


def _same_clock(gold: Value, answer: Value, judge: Judge) -> bool:
    """Compares times of day; an answer in this notation is a ratio only if the gold answer is one."""
    if isinstance(gold, Clock) and isinstance(answer, Clock):
        return gold.numbers == answer.numbers and (not gold.half or not answer.half or gold.half == answer.half)
    if isinstance(gold, Ratio) and isinstance(answer, Clock) and not answer.half:
        return _same_ratio(gold, as_ratio(answer), judge)
    return False


def _same_ratio(gold: Value, answer: Value, judge: Judge) -> bool:
    """Compares terms up to a common factor; zero terms must agree exactly, which avoids division by zero."""
    if not (isinstance(gold, Ratio) and isinstance(answer, Ratio)):
        ratio, other = (gold, answer) if isinstance(gold, Ratio) else (answer, gold)
        if not (isinstance(ratio, Ratio) and isinstance(other, Scalar) and len(ratio.terms) == 2):
            return False
        quotient = Scalar(rf"\frac{{{ratio.terms[0].latex}}}{{{ratio.terms[1].latex}}}")
        return _same_scalar(quotient, other, judge) if ratio is gold else _same_scalar(other, quotient, judge)
    if len(gold.terms) != len(answer.terms):
        return False
    numbers = [rational(term.latex) for ratio in (gold, answer) for term in ratio.terms]
    if 0 in numbers or all(is_name(term) for term in gold.terms):
        return _same_ordered(gold.terms, answer.terms, judge)
    (first, *golds), (other_first, *answers) = gold.terms, answer.terms
    return all(
        judge.equal(_product(g.latex, other_first.latex), _product(a.latex, first.latex))
        for g, a in zip(golds, answers, strict=True)
    )


def _product(a: str, b: str) -> str:
    x, y = rational(a), rational(b)
    return rf"({a}) \cdot ({b})" if x is None or y is None else fraction_latex(x * y)


def _same_relation(gold: Value, answer: Value, judge: Judge) -> bool:
    if isinstance(answer, Relation) and is_chain(answer):
        stated = len(answer.parts) > 2 or not isinstance(gold, Relation)  # y = 2x may be the asked-for line
        if stated and not holds(answer, judge, same):
            return False
        if not isinstance(gold, Relation):
            return says(answer, gold, judge, same)
        answer = collapsed(answer)
    if isinstance(gold, Relation) and is_chain(gold):
        if not isinstance(answer, Relation):
            return _is_named_by(gold, answer, judge)
        gold = collapsed(gold)
    if not isinstance(gold, Relation) or not isinstance(answer, Relation):
        return False
    if gold.signs == answer.signs == ("=",) and same_name(gold.parts[0], answer.parts[0]):
        return same(gold.parts[1], answer.parts[1], judge)
    if len(gold.parts) == len(answer.parts) and all(isinstance(p, Scalar) for p in gold.parts + answer.parts):
        return _same_scalars(gold, answer, judge)
    return gold.signs == answer.signs and _same_ordered(gold.parts, answer.parts, judge)


def _is_named_by(gold: Relation, answer: Value, judge: Judge) -> bool:
    """Compares gold answers such as `x = 5` and 0.56 = 56 % with a bare value."""
    if is_name(gold.parts[0]) or is_name(gold.parts[-1]):
        return any(same(part, answer, judge) for part in gold.parts if not is_name(part))
    constant = all(isinstance(part, Scalar) and rational(part.latex) is not None for part in gold.parts)
    return constant and any(same(part, answer, judge) for part in gold.parts)


def _same_scalars(gold: Relation, answer: Relation, judge: Judge) -> bool:
    """Compares relations between expressions pair by pair, with the answer reversed if its signs are."""
    if gold.signs != answer.signs and gold.signs == tuple(FLIP[sign] for sign in reversed(answer.signs)):
        answer = Relation(answer.parts[::-1], gold.signs)
    if gold.signs != answer.signs:
        return False
    golds = [part.latex for part in gold.parts if isinstance(part, Scalar)]
    answers = [part.latex for part in answer.parts if isinstance(part, Scalar)]
    return all(
        _same_pair((golds[i], golds[i + 1]), (answers[i], answers[i + 1]), sign in ("=", "ne"), judge)
        for i, sign in enumerate(gold.signs)
    )


def _same_pair(gold: tuple[str, str], answer: tuple[str, str], symmetric: bool, judge: Judge) -> bool:
    forms = [answer, answer[::-1]] if symmetric else [answer]
    if all(map(surely_defined, gold)) and any(
        compact(gold[0]) == compact(a) and compact(gold[1]) == compact(b) for a, b in forms
    ):
        return True
    return judge.equal_relations(gold, answer, symmetric)


def _word_form_of(value: Value) -> str:
    if isinstance(value, Words):
        return value.text
    return word_form(_letters(value.latex)) if isinstance(value, Scalar) and not value.unit else ""


def _letters(latex: str) -> str:
    """Returns the word that the letters of an expression spell, or "" if it has other characters."""
    text = latex.replace(r"\text", "").translate(str.maketrans("", "", "{}() "))
    return word_form(text) if text.isalpha() else ""
