r"""Symbolic equality of expressions by math-verify and sympy. Only for worker processes, since it may not terminate.

`latex2sympy`, math-verify's parser, builds unevaluated sympy objects. It passes number tokens to `sympy.Number(str)`,
which reaches sympy's `parse_expr` and thereby `eval`; `close_evaluator` replaces this by an exact parser for numbers.
math-verify is lenient (it rounds to six places and ignores differences below 1e-15), so its positive result is accepted
only after a numerical check and a proof by sympy.
"""

import functools
import math
import random
import re
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify.grader import verify
from sympy.core.sympify import SympifyError

from mass_jax.tasks.grading.judge import Judge, Sides, compact, rational, rounds_to, surely_defined
from mass_jax.tasks.grading.units import TRIGONOMETRIC
from mass_jax.tasks.grading.values import Unreadable

MAX_LOG10 = 20_000  # digits of the largest number that may be computed
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MIXED = re.compile(r"(?<![0-9.^_])([0-9]+)(?:\s*\\frac\{([0-9]+)\}\{([0-9]+)\}|\s+([0-9]+)\s*/\s*([0-9]+)(?![0-9.]))")
# By the order of operations, 1/2x is (1/2)x; latex2sympy parses it as 1/(2x).
_QUOTIENT = re.compile(r"(?<![0-9.^_/}a-zA-Z)])([0-9]+)\s?/\s?([0-9]+)(?=\s*(?:[a-zA-Z(]|\\pi|\\sqrt))")
_COMMAND_OR_I = re.compile(r"\\text ?\{[^{}]*\}|\\[a-zA-Z]+|I(?:_(?:[A-Za-z0-9]|\{[^{}]{1,20}\}))?")
_PRIMED = re.compile(r"(?<![A-Za-z\\])([A-Za-z])('{1,3})(?![('])")
# latex2sympy adds adjacent numbers, as in a mixed number: 2(3) would be 5.
_PRODUCT = re.compile(r"(?<![0-9._^])[0-9]+(?:\.[0-9]+)? ?(?=[(\[{])|\) ?(?=[0-9(]|\\frac)")
_BINOMIAL = re.compile(r"((?<![A-Za-z\\])[A-Za-z] ?)?(\\binom\{[^{}]*\}\{[^{}]*\})")
_LOOSE = re.compile(
    r"\\\{|\^ ?[0-9A-Za-z] ?\^|[/*] ?[/*]|\] ?[(\[0-9]|\) ?\[|(?<![A-Za-z0-9}\])_^])\{[0-9.]+\} ?[0-9{(]"
)
# Undefined expressions that sympy evaluates to a number while it builds them.
_UNDEFINED = re.compile(r"(?:/|\\div) ?0+(?:\.0*)?(?![0-9.])|\\log ?_ ?(?:[01]|\{ ?[01] ?\})")
_ZEROTH_POWER = re.compile(r"\^ ?(?:0|\{ ?0 ?\})(?![0-9.])")
_POINTS = re.compile("[A-Z]{2,}")
_SINGULAR = (sympy.log, sympy.tan, sympy.cot, sympy.sec, sympy.csc, sympy.gamma, sympy.factorial)
_KEEP_CASE = ConversionConfig(lowercase_symbols=False)


def read_number(text: Any, *_: Any, **__: Any) -> sympy.Rational:
    """Parses a number exactly and nothing else; replaces sympy's `parse_expr`.

    Raises:
        SympifyError: If the text is not a number.
    """
    if not isinstance(text, str) or not _NUMBER.fullmatch(text.strip()):
        raise SympifyError(f"not a number: {str(text)[:40]!r}")
    return sympy.Rational(text.strip())


def close_evaluator() -> None:
    """Disables all functions by which sympy evaluates text as Python, for the rest of this process.

    Call it after `warm_up`, since sympy's modules evaluate their own strings when imported.
    """
    import sympy.parsing.sympy_parser as parser

    def refuse(*_: Any, **__: Any) -> Any:
        raise SympifyError("evaluation of text is disabled")

    parser.parse_expr = read_number
    parser.eval_expr = refuse
    parser.stringify_expr = refuse
    parse.cache_clear()


def equal(a: str, b: str) -> bool:
    """Returns whether two LaTeX expressions are equal.

    Raises:
        Unreadable: If either cannot be parsed, is too large to compute, or is undefined, such as 1/0.
    """
    if compact(a) == compact(b) and surely_defined(a):
        return True
    return not _reordered(a, b) and _same(parse(a), parse(b))


def close(a: str, b: str) -> bool:
    """Returns whether `b` is the number `a`, rounded to the decimals that `b` has.

    Raises:
        Unreadable: As for `equal`.
    """
    exact = parse(a).evalf(50)
    return bool(exact.is_Float or exact.is_Rational) and rounds_to(Fraction(str(sympy.Rational(exact))), b)


def _reordered(a: str, b: str) -> bool:
    """Returns whether the expressions have point names, such as AB and BA, with the letters in different orders."""
    names = [set(_POINTS.findall(re.sub(r"\\[a-zA-Z]+", " ", text))) for text in (a, b)]
    return any(sorted(x) == sorted(y) for x in names[0] - names[1] for y in names[1] - names[0])


@functools.lru_cache(maxsize=256)
def parse(latex: str) -> sympy.Expr:
    """Parses a LaTeX expression to a sympy object of bounded size.

    Raises:
        Unreadable: If it cannot be parsed, is too large to compute, or is undefined, such as 1/0.
    """
    number = rational(latex)
    if number is not None:
        return sympy.Rational(number.numerator, number.denominator)
    text = _respelled(latex)
    try:
        expr = latex2sympy(text, is_real=None, normalization_config=None, conversion_config=_KEEP_CASE)
    except RecursionError:
        raise Unreadable("too deep") from None
    except Exception as error:
        raise Unreadable(f"not an expression ({type(error).__name__})") from None
    if not isinstance(expr, sympy.Expr):
        raise Unreadable("not an expression")
    _check_size(expr)
    _check_defined(expr)
    names = {symbol: sympy.I if symbol.name == "i" else sympy.E for symbol in expr.free_symbols if symbol.name in "ie"}
    value = expr.subs(names).doit()
    if value.has(sympy.zoo, sympy.nan, sympy.AccumBounds):
        raise Unreadable("undefined")
    return value


def _respelled(latex: str) -> str:
    r"""Rewrites notation that latex2sympy would misinterpret.

    Raises:
        Unreadable: If the expression is ambiguous or undefined.

    Example:
        >>> _respelled(r"2 1/3"), _respelled("1/2x"), _respelled(r"\sin 30\degree")
        ('(2+\\frac{1}{3})', '\\frac{1}{2}x', '\\sin (30\\cdot\\frac{\\pi}{180})')
    """
    if _LOOSE.search(latex):
        raise Unreadable("numbers or operators side by side")
    if "infty" in latex and not re.fullmatch(r"[+-]?\s*\\infty", latex.strip()):
        raise Unreadable("infinity in an expression")
    text = _MIXED.sub(lambda m: rf"({m[1]}+\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}})", latex)
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    text = _QUOTIENT.sub(r"\\frac{\1}{\2}", text)
    text = _BINOMIAL.sub(lambda m: rf"{m[1]}\cdot ({m[2]})" if m[1] else f"({m[2]})", text)
    text = _PRODUCT.sub(lambda m: rf"{m[0].rstrip()}\cdot ", text)
    text = _PRIMED.sub(lambda m: rf"\text{{{m[1]}{'prime' * len(m[2])}}}", text)  # latex2sympy drops the prime
    text = _COMMAND_OR_I.sub(_letter_i, text)
    if _UNDEFINED.search(text) or (_ZEROTH_POWER.search(text) and ("/" in text or "frac" in text)):
        raise Unreadable("undefined")
    if TRIGONOMETRIC.search(text):
        text = re.sub(r"([0-9.]+|\\[a-z]+|[A-Za-z])\s*\\degree", r"(\1\\cdot\\frac{\\pi}{180})", text)
        if r"\degree" in text:
            raise Unreadable("degrees of an expression")
    return text.replace(r"\degree", "")


def _letter_i(found: re.Match[str]) -> str:
    """Rewrites the letter I and its index as a name; latex2sympy parses it as the imaginary unit."""
    return rf"\text{{{re.sub('[^A-Za-z0-9]', '', found[0])}}}" if found[0].startswith("I") else found[0]


def _same(x: sympy.Expr, y: sympy.Expr) -> bool:
    if x == y:
        return True
    if x.is_Rational and y.is_Rational:
        return False
    if x.is_finite is False or y.is_finite is False:
        return False  # infinities are equal only if identical
    if x.free_symbols != y.free_symbols:
        return sympy.simplify(x - y) == 0  # a symbol may cancel, as in x - x
    if _differ(x, y):
        return False
    return bool(verify([x], [y], timeout_seconds=None)) and _proved(x - y)


def _proved(difference: sympy.Expr) -> bool:
    """Returns whether sympy proves that a difference is zero, to confirm math-verify's result."""
    simplified = sympy.simplify(difference)
    if simplified.is_zero is not None:
        return bool(simplified.is_zero)
    return simplified == 0 or bool(simplified.equals(0))


def _differ(x: sympy.Expr, y: sympy.Expr) -> bool:
    """Returns whether two expressions differ numerically at one of three random real points, to 35 digits."""
    symbols = sorted(x.free_symbols, key=str)
    rng = random.Random("points")
    for _ in range(3 if symbols else 1):
        point = {s: sympy.Rational(rng.randint(-400, 400), 101) + sympy.Rational(1, 7) for s in symbols}
        values = [complex_value(expr.subs(point)) for expr in (x, y)]
        if None in values:
            continue
        scale = max(abs(values[0]), abs(values[1]))
        if abs(values[0] - values[1]) > scale * sympy.Float("1e-35", 50):
            return True
    return False


def complex_value(expr: sympy.Expr) -> Any:
    """Evaluates a constant to fifty digits; returns None if it has no finite value."""
    value = expr.evalf(50)
    parts = value.as_real_imag()
    return value if all(part.is_Float or part.is_Rational for part in parts) else None


def equal_relations(gold: Sides, answer: Sides, symmetric: bool) -> bool:
    """Returns whether two relations are equivalent: left - right agrees up to a constant factor.

    Args:
        gold: Left and right side of the gold relation.
        answer: Left and right side of the answer, with the same sign.
        symmetric: True for = and ne; for inequalities, the factor must be positive.

    Raises:
        Unreadable: As for `equal`.
    """
    if any(_reordered(g, a) for g, a in zip(gold, answer, strict=True)):
        return False
    x = parse(gold[0]) - parse(gold[1])
    y = parse(answer[0]) - parse(answer[1])
    if x.free_symbols != y.free_symbols or not x.free_symbols:
        return _same(x, y)
    rng = random.Random("factor")
    for _ in range(5):
        point = {s: sympy.Rational(rng.randint(1, 400), 101) for s in sorted(x.free_symbols, key=str)}
        top, bottom = x.subs(point), y.subs(point)
        if top.is_Rational and bottom.is_Rational and bottom != 0 and top != 0:
            factor = top / bottom
            return (symmetric or factor > 0) and _same(x, factor * y)
    ratio = sympy.simplify(x / y)
    return bool(ratio.is_number) and ratio != 0 and (symmetric or bool(ratio > 0))


SYMBOLIC = Judge(equal, equal_relations, close)
"""Judge for arbitrary expressions; raises `Unreadable` for those without a value."""


def _check_size(expr: sympy.Basic) -> None:
    """Rejects numbers of more than `MAX_LOG10` digits before they are computed."""
    for part in sympy.preorder_traversal(expr):
        if part.is_number and _log10(part) > MAX_LOG10:
            raise Unreadable("too large to compute")
        if isinstance(part, sympy.Pow) and part.exp.is_number and not part.base.is_number and _log10(part.exp) > 3:
            raise Unreadable("too large to compute")


def _check_defined(expr: sympy.Basic) -> None:
    """Rejects expressions with an undefined part, which sympy may simplify away, as in 1/(1/0)."""
    for part in sympy.postorder_traversal(expr):
        if isinstance(part, sympy.Pow):
            negative, zero = part.exp.is_extended_negative, part.exp.is_zero
            if (negative or zero) and sympy.simplify(part.base).is_zero:
                raise Unreadable("undefined")
        elif isinstance(part, _SINGULAR) and part.is_number and part.doit().has(sympy.zoo, sympy.nan):
            raise Unreadable("undefined")


def _log10(expr: sympy.Basic) -> float:
    """Returns an upper bound on the digits needed to compute a constant."""
    if expr.is_Rational:
        return max(len(str(abs(expr.p))), len(str(expr.q)))
    inner = [_log10(arg) for arg in expr.args]
    if isinstance(expr, sympy.Pow):
        return inner[0] * (_magnitude(expr.exp) if inner[1] <= 15 else 10.0 ** min(inner[1], 300.0))
    if isinstance(expr, sympy.factorial | sympy.binomial | sympy.gamma):
        return 10.0 ** min(max(inner), 300.0)
    return math.fsum(inner) + 1 if isinstance(expr, sympy.Mul) else max(inner, default=1.0) + 1


def _magnitude(exponent: sympy.Basic) -> float:
    """Returns the approximate absolute value of a constant that is cheap to compute, at least 1."""
    value = complex_value(exponent)
    return 10.0**15 if value is None else max(1.0, float(abs(value)))


def warm_up() -> None:
    """Triggers sympy's lazy imports, so that the first answers are fast and nothing is imported afterwards."""
    pairs = [
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        ("x^2-2x-15", "(x+3)(x-5)"),
        (r"\sin^2 t", r"1-\cos^2 t"),
        (r"\log_2 5", r"\frac{\ln 5}{\ln 2}"),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
        (r"\frac{2-14i}{25}", r"\frac{2}{25}-\frac{14}{25}i"),
        (r"|x-2|+5!", r"|2-x|+\binom{6}{3}"),
        (r"e^{i\pi}", "-1"),
    ]
    for a, b in pairs:
        equal(a, b)
    equal_relations(("y", "2x+1"), ("2y", "4x+2"), symmetric=True)
    import sympy.physics.units  # noqa: F401  (`simplify` imports it lazily, and it evaluates its own strings)
