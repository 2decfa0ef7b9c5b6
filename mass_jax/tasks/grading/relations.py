r"""Rewrites relations as values: `x > 3` as an interval, `x \ne 2` as a union, `x = 3, y = -1` as a tuple."""

import itertools
import re

from mass_jax.tasks.grading.judge import fraction_latex, rational
from mass_jax.tasks.grading.values import Many, Ordered, Ratio, Relation, Scalar, Value, Words

FLIP = {"=": "=", "approx": "approx", "ne": "ne", "<": ">", ">": "<", "le": "ge", "ge": "le"}
EQUALITIES = frozenset({"=", "approx"})
_LOW, _HIGH = Scalar(r"-\infty"), Scalar(r"\infty")

_GREEK = re.compile(r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|rho|sigma|tau|omega)(?![a-zA-Z])")
_INDEX = r"(?:_(?:[A-Za-z0-9]|\{[^{}]{1,24}\}))?"
_ARGUMENT = r"-?[A-Za-z0-9]{1,4}"
_MEASURE = r"(?:\\overline\{[A-Z]{1,4}\}|(?:\\triangle ?)?[A-Z]{1,6}|[A-Z]_(?:[A-Za-z0-9]|\{[^{}]{1,24}\}))"
# Left sides of assignments, with Greek letters replaced by "g".
_NAMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"[A-Za-z]{_INDEX}'?",
        rf"[A-Za-z]{_INDEX}(?:'|\^\{{-1\}})? ?\( ?{_ARGUMENT}(?:, ?{_ARGUMENT})? ?\)",
        r"P ?\([^()]{1,30}\)",
        rf"m? ?{_MEASURE}",
        r"\| ?(?:\\overline\{[A-Z]{1,4}\}|[A-Z]{2,6}) ?\|",
        rf"\\frac\{{ ?{_MEASURE} ?\}}\{{ ?{_MEASURE} ?\}}",
        r"\\(?:sin|cos|tan) ?(?:[A-Z]{1,3}|g|\( ?(?:[A-Za-z]|[A-Z]{2,3}) ?\))",
    )
)
_MAX_NAME_CHARS = 80
_COMMAND_OR_LETTER = re.compile(r"\\text ?\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]" + _INDEX)


def is_name(value: Value) -> bool:
    r"""Returns whether a value can be the left side of an assignment: `x`, `f(x)`, `|AB|`, `S_1:S_2`, `\text{area}`.

    Example:
        >>> is_name(Scalar("|AB|")), is_name(Scalar("f(2)")), is_name(Scalar("|x|")), is_name(Scalar("2x"))
        (True, True, False, False)
    """
    if isinstance(value, Ordered):
        return all(is_name(item) for item in value.items)
    if isinstance(value, Ratio):
        return all(is_name(term) for term in value.terms)
    if isinstance(value, Words):
        return True
    if not isinstance(value, Scalar) or value.unit or len(value.latex) > _MAX_NAME_CHARS:
        return False
    latex = _GREEK.sub("g", value.latex)
    if latex.startswith("{") and latex.endswith("}"):  # the rest of \vec{v}
        latex = latex[1:-1]
    return any(name.fullmatch(latex) for name in _NAMES)


def same_name(a: Value, b: Value) -> bool:
    """Returns whether two names are the same; `|AB|` is the same as the length of the segment AB.

    Example:
        >>> same_name(Scalar("|AB|"), Scalar("AB")), same_name(Scalar("AB"), Scalar("AC"))
        (True, False)
    """
    if not (isinstance(a, Scalar) and isinstance(b, Scalar) and is_name(a) and is_name(b)):
        return False
    forms = {each.latex.replace(r"\overline", "").translate(str.maketrans("", "", "|{} ")) for each in (a, b)}
    return len(forms) == 1


def variables(latex: str) -> set[str]:
    r"""Returns the variables of an expression; pi, e and i are constants.

    Example:
        >>> sorted(variables(r"\frac{x}{2}+\theta\pi+e"))
        ['\\theta', 'x']
    """
    found = _COMMAND_OR_LETTER.findall(latex)
    return {each for each in found if _GREEK.fullmatch(each) or not (each.startswith("\\") or each in ("e", "i"))}


def relates_variables(relation: Relation) -> bool:
    """Returns whether a relation between expressions has more than one variable, as y <= -x."""
    latex = " ".join(part.latex for part in relation.parts if isinstance(part, Scalar))
    return all(isinstance(part, Scalar) for part in relation.parts) and len(variables(latex)) > 1


def is_constant(value: Value) -> bool:
    """Returns whether a value has no variables."""
    if isinstance(value, Scalar):
        return not variables(value.latex)
    if isinstance(value, Ratio):
        return all(is_constant(term) for term in value.terms)
    if isinstance(value, Many | Ordered):
        return all(is_constant(item) for item in value.items)
    return not isinstance(value, Words)


def variable(value: Value) -> str:
    """Returns the variable of a relation that denotes a set of numbers, or "" for any other value."""
    if not isinstance(value, Relation) or as_set(value) is value:
        return ""
    named = next((part for part in value.parts if is_name(part) or _is_negative_name(part)), None)
    return named.latex.removeprefix("-").strip() if isinstance(named, Scalar) else ""


def as_set(value: Value) -> Value:
    r"""Rewrites `x > 3` and `-2 < x \le 5` as intervals and `x \ne 2` as a union; returns other values unchanged."""
    if isinstance(value, Many) and not value.union:
        return _without_points(value) or _intersection(value) or value
    if not isinstance(value, Relation):
        return value
    if value.signs == ("ne",):
        return _without_points(Many((value,))) or value
    if not {"<", ">", "le", "ge"}.issuperset(value.signs) or not all(isinstance(p, Scalar) for p in value.parts):
        return value
    return _as_interval(_with_positive_name(value)) or value


def _as_interval(value: Relation) -> Ordered | None:
    parts, signs = value.parts, value.signs
    if all(sign in (">", "ge") for sign in signs):
        parts, signs = parts[::-1], tuple(FLIP[sign] for sign in reversed(signs))
    if not all(sign in ("<", "le") for sign in signs):
        return None
    opened, closed = "(" if signs[0] == "<" else "[", ")" if signs[-1] == "<" else "]"
    if len(parts) == 3 and is_name(parts[1]):
        return Ordered(opened + closed, (parts[0], parts[2]))
    if len(parts) == 2 and is_name(parts[0]) and not is_name(parts[1]):
        return Ordered("(" + closed, (_LOW, parts[1]))
    if len(parts) == 2 and is_name(parts[1]) and not is_name(parts[0]):
        return Ordered(opened + ")", (parts[0], _HIGH))
    return None


def _intersection(value: Many) -> Ordered | None:
    r"""Rewrites `x > -2 \text{ and } x < 5` as an interval; returns None unless numbers bound one variable."""
    if len(value.items) != 2 or len({variable(item) for item in value.items} - {""}) != 1:
        return None
    halves = [as_set(item) for item in value.items if isinstance(item, Relation)]
    if len(halves) != 2 or not all(isinstance(half, Ordered) for half in halves):
        return None
    low, high = sorted((half for half in halves if isinstance(half, Ordered)), key=lambda half: half.items[0] == _LOW)
    ends = [rational(end.latex) if isinstance(end, Scalar) else None for end in (low.items[0], high.items[1])]
    if ends[0] is None or ends[1] is None or ends[0] >= ends[1] or low.items[1] != _HIGH or high.items[0] != _LOW:
        return None
    return Ordered(low.brackets[0] + high.brackets[1], (low.items[0], high.items[1]))


def _is_negative_name(value: Value) -> bool:
    return isinstance(value, Scalar) and value.latex.startswith("-") and is_name(Scalar(value.latex[1:].strip()))


def _with_positive_name(value: Relation) -> Relation:
    """Rewrites `-x < 3` as `x > -3`: negates all parts and flips all signs if a part is a negated name."""
    if any(map(is_name, value.parts)) or not any(map(_is_negative_name, value.parts)):
        return value
    negated = tuple(Scalar(_negative(p.latex), p.unit) for p in value.parts if isinstance(p, Scalar))
    return Relation(negated, tuple(FLIP[sign] for sign in value.signs))


def _negative(latex: str) -> str:
    number = rational(latex)
    if number is not None:
        return fraction_latex(-number)
    rest = latex.removeprefix("-").strip()
    return rest if latex.startswith("-") and "+" not in rest and "-" not in rest else f"-({latex})"


def _without_points(value: Many) -> Value | None:
    r"""Rewrites `x \ne 1, x \ne 2` and `x \ne 1, 2` as a union of intervals; returns None for other values."""
    names: set[str] = set()
    points: list[Value] = []
    for i, item in enumerate(value.items):
        if isinstance(item, Relation) and item.signs == ("ne",):
            name, point = item.parts if is_name(item.parts[0]) else item.parts[::-1]
            if not isinstance(name, Scalar) or not is_name(name) or is_name(point):
                return None
            names.add(name.latex)
            points += point.items if isinstance(point, Many) else [point]
        elif i and isinstance(item, Scalar):
            points.append(item)
        else:
            return None
    return punctured(tuple(points)) if len(names) == 1 else None


def punctured(points: tuple[Value, ...]) -> Value | None:
    """Returns the real numbers without some points as a union of intervals.

    Args:
        points: The excluded points.

    Returns:
        The union, or None if the points have units or cannot be ordered by `rational`.
    """
    if not points or not all(isinstance(point, Scalar) and not point.unit for point in points):
        return None
    scalars = [point for point in points if isinstance(point, Scalar)]
    if len(scalars) > 1:
        values = {rational(point.latex): point for point in scalars}
        if None in values:
            return None
        scalars = [point for _, point in sorted(values.items(), key=lambda pair: pair[0] or 0)]
    bounds = [_LOW, *scalars, _HIGH]
    return Many(tuple(Ordered("()", pair) for pair in itertools.pairwise(bounds)), union=True)


def as_tuple(value: Value) -> Value:
    """Rewrites `x = 3, y = -1` as (3,-1) if the names are in alphabetical order; returns other values unchanged."""
    if not isinstance(value, Many) or value.union:
        return value
    equations = [item for item in value.items if isinstance(item, Relation) and item.signs == ("=",)]
    names = [name.latex for e in equations if isinstance(name := e.parts[0], Scalar) and is_name(name)]
    if len(names) < len(value.items) or names != sorted(set(names)):
        return value
    return Ordered("()", tuple(equation.parts[1] for equation in equations))
