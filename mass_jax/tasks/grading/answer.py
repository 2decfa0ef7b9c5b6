r"""Parser for the structure of answers: expressions, lists, tuples, intervals, unions, matrices, relations and words.

math-verify only parses expressions. Brackets and the order of parts are interpreted here, because a verifier that
confuses (0,1] with [0,1] or "dayMon" with "Monday" rewards wrong answers.
"""

import functools
import re

from mass_jax.tasks.grading.latex import normalize, split_signs, split_top, to_ascii
from mass_jax.tasks.grading.leaf import read_leaf
from mass_jax.tasks.grading.relations import punctured
from mass_jax.tasks.grading.values import (
    MAX_ANSWER_CHARS,
    MAX_DEPTH,
    MAX_DIGITS,
    MAX_ITEMS,
    MAX_LEVELS,
    Clock,
    Many,
    Matrix,
    Ordered,
    Ratio,
    Relation,
    Scalar,
    Unreadable,
    Value,
)

_LIST_WORDS = re.compile(r" ?[,;]? ?(?:\\text\{ ?(?:, ?)?(?:and|or) ?\}|\b(?:and|or)\b) ?|[,;]")
_OR = re.compile(r" ?,? ?(?:\\text\{ ?or ?\}|\bor\b) ?")
_INEQUALITY = re.compile(r"[<>]|\\(?:le|ge)(?![a-zA-Z])")
_SIGNS = re.compile(r"\\(?:le|ge|ne|approx)(?![a-zA-Z])|[=<>]")
_SEMICOLON, _SEPARATORS, _COLON, _CELL = (re.compile(sign) for sign in (";", "[,;]", ":", "&"))
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_SETMINUS = re.compile(r"\\setminus(?![a-zA-Z])")
_PLAIN_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_ALLOWED = re.compile(r"[0-9A-Za-z\s\\{}()\[\]+\-*/^_=<>|.,:;!&%$~']*")
_THOUSANDS = re.compile(r"[^0-9,;()\[\]]*[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?[^0-9,;()\[\]]*(?:\^\{?[23]\}?)?")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9]))?(?: ?(?:\\text\{ ?)?([apAP])\.? ?[mM]\.? ?\}?)?")
_MEMBER = re.compile(r"\\?[A-Za-z]{1,8} ?\\in(?![a-zA-Z]) ?")
_REALS = re.compile(r"\\mathbb ?\{?R\}?")
_CONDITION = re.compile(r"\\?[A-Za-z](?: ?\\in ?\\mathbb ?\{?R\}?)? ?[|:]")


@functools.lru_cache(maxsize=1024)
def read(text: str) -> Value:
    r"""Parses the structure of an answer.

    Args:
        text: Answer in LaTeX or plain text, without the rest of the response; untrusted.

    Returns:
        The parsed value.

    Raises:
        Unreadable: If the text is not an answer; the message is the reason.

    Example:
        >>> read(r"(0,\tfrac12]")
        Ordered(brackets='(]', items=(Scalar(latex='0', unit=''), Scalar(latex='\\frac{1}{2}', unit='')))
        >>> read(r"\text{Monday}")
        Words(text='monday')
        >>> read("__import__('os')")
        Traceback (most recent call last):
        ...
        mass_jax.tasks.grading.values.Unreadable: unknown characters
    """
    if len(text) <= MAX_DIGITS and _PLAIN_NUMBER.fullmatch(text):
        return Scalar(text)
    screen(text)
    return _read(normalize(text), 0)


def screen(text: str) -> None:
    """Rejects text that cannot be an answer: unknown characters, deep nesting, too many digits.

    Raises:
        Unreadable: If the text is rejected; the message is the reason.
    """
    if not text.strip():
        raise Unreadable("empty")
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable("too long")
    text = to_ascii(text)
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable("too long")
    # Without quotes, double underscores, backticks, @ and #, the text cannot spell Python.
    if not _ALLOWED.fullmatch(text) or re.search(r"__|'\w|\(\s*'", text):
        raise Unreadable("unknown characters")
    if any(len(digits) > MAX_DIGITS for digits in re.findall("[0-9]+", text)):
        raise Unreadable("too many digits")
    depth = deepest = 0
    for char in text:
        depth += (char in "{[(") - (char in "}])")
        deepest = max(deepest, depth)
    if depth != 0:
        raise Unreadable("unbalanced brackets")
    if deepest > MAX_DEPTH or text.count("^") > MAX_DEPTH * 2:
        raise Unreadable("too deep")


def _read(text: str, depth: int) -> Value:
    """Parses normalized text at a nesting depth."""
    text = text.strip().removeprefix(r"\approx").removeprefix("=").removesuffix(",").strip()
    if depth > MAX_LEVELS:
        raise Unreadable("too deep")
    if member := _MEMBER.match(text):
        text = text[member.end() :]
    if not text:
        raise Unreadable("empty part")
    if matrix := _read_matrix(text, depth):
        return matrix
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return Many(())
    if _REALS.fullmatch(text):
        return Ordered("()", (Scalar(r"-\infty"), Scalar(r"\infty")))
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")  # 1,250 is a number; lists have spaces or groups of other lengths
    return _read_list(text, depth) or _read_set(text, depth) or _read_relation(text, depth) or _read_single(text, depth)


def _read_list(text: str, depth: int) -> Many | None:
    """Parses a list of answers or a disjunction of inequalities; returns None if there are no separators."""
    alternatives = split_top(text, _OR)
    if len(alternatives) > 1 and all(_INEQUALITY.search(part) for part in alternatives):
        return Many(tuple(_read(part, depth + 1) for part in alternatives), union=True)
    groups = split_top(text, _SEMICOLON)
    if len(groups) > 1 and all("," in group and "=" in group for group in groups):
        return _many(groups, depth)  # for example, p=5, q=2; p=7, q=2
    parts = split_top(text, _LIST_WORDS)
    return _many([part for part in parts if part.strip()], depth) if len(parts) > 1 else None


def _many(parts: list[str], depth: int) -> Many:
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    items: list[Value] = []
    for part in parts:
        value = _read(part, depth + 1)
        items += value.items if isinstance(value, Many) and r"\pm" in part else [value]
    return Many(tuple(items))


def _read_set(text: str, depth: int) -> Value | None:
    """Parses a union of sets, or the real numbers without some points; returns None for other text."""
    unions = split_top(text, _CUP)
    if len(unions) > 1:
        return Many(tuple(_read(part, depth + 1) for part in unions), union=True)
    parts = split_top(text, _SETMINUS)
    if len(parts) == 2 and _REALS.fullmatch(parts[0].strip()):
        points = _read(parts[1], depth + 1)
        if isinstance(points, Many) and (value := punctured(points.items)):
            return value
    if len(parts) > 1:
        raise Unreadable("difference of sets")
    return None


def _read_relation(text: str, depth: int) -> Relation | None:
    parts, signs = split_signs(text, _SIGNS)
    if len(parts) < 2:
        return None
    if len(parts) > 6:
        raise Unreadable("too many items")
    values = tuple(_read(part, depth + 1) for part in parts)
    if any(isinstance(value, Ratio) for value in values):  # in AB:BC = 7:32, the right side is not a time of day
        values = tuple(as_ratio(value) if isinstance(value, Clock) else value for value in values)
    return Relation(values, tuple(sign.lstrip("\\") for sign in signs))


def as_ratio(clock: Clock) -> Ratio:
    """Returns a time of day as the ratio with the same notation."""
    return Ratio(tuple(Scalar(str(number)) for number in clock.numbers))


def _read_single(text: str, depth: int) -> Value:
    """Parses text without separators or relation signs outside brackets."""
    return _read_brackets(text, depth) or _read_colons(text, depth) or read_leaf(text)


def _read_brackets(text: str, depth: int) -> Value | None:
    """Parses a set, tuple or interval; returns None unless such brackets enclose the whole text."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        inside = text[2:-2].strip()
        condition = _CONDITION.match(inside)
        if condition and _SIGNS.search(inside, condition.end()):  # for example, {x | x > 2}
            return _read(inside[condition.end() :], depth + 1)
        value = _read(inside, depth + 1)
        return value if isinstance(value, Many) and not value.union else Many((value,))
    if text[0] not in "([" or text[-1] not in ")]" or not _encloses(text):
        return None
    parts = split_top(text[1:-1], _SEPARATORS)
    if len(parts) == 1:
        return _read(text[1:-1], depth + 1) if text[0] + text[-1] in ("()", "[]") else None
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    return Ordered(text[0] + text[-1], tuple(_read(part, depth + 1) for part in parts))


def _encloses(text: str) -> bool:
    """Returns whether the first bracket closes at the last character."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0:
            return i == len(text) - 1
    return False


def _read_colons(text: str, depth: int) -> Clock | Ratio | None:
    """Parses 12:30 as a time of day and 3:2 as a ratio; a comparison may reinterpret a time as a ratio."""
    if clock := _CLOCK.fullmatch(text):
        numbers = tuple(int(number) for number in clock.groups()[:3] if number)
        if numbers[0] <= 24:
            return Clock(numbers, f"{clock[4].lower()}m" if clock[4] else "")
    terms = split_top(text, _COLON)
    if len(terms) == 1:
        return None
    values = tuple(_read(term, depth + 1) for term in terms)
    scalars = tuple(value for value in values if isinstance(value, Scalar))
    if len(scalars) < len(values) or len(values) > MAX_ITEMS:
        raise Unreadable("terms of a ratio")
    return Ratio(scalars)


def _read_matrix(text: str, depth: int) -> Matrix | None:
    r"""Parses `factor \begin{pmatrix} a & b \\ c & d \end{pmatrix}` in any matrix environment."""
    factor, begin, rest = text.partition(r"\begin{")
    name, _, body = rest.partition("}")
    if not begin or name not in ("matrix", "pmatrix", "bmatrix", "array"):
        return None
    body, end, after = body.rpartition(rf"\end{{{name}}}")
    factor = factor.rstrip()
    opened = factor[-1:] if factor[-1:] in ("(", "[") else ""
    if not end or after.strip() not in ("", {"(": ")", "[": "]"}.get(opened)):
        return None
    if "begin" in body:
        raise Unreadable("matrix in a matrix")
    if name == "array" and body.lstrip().startswith("{"):
        body = body.partition("}")[2]
    lines = [line for line in re.split(r"\\\\(?: ?\[[^\]]{0,20}\])?", body) if line.strip()]
    rows = tuple(tuple(_read(cell, depth + 1) for cell in split_top(line, _CELL)) for line in lines)
    if not rows or len({len(row) for row in rows}) != 1 or len(rows) * len(rows[0]) > MAX_ITEMS:
        raise Unreadable("rows of a matrix differ")
    factor = factor.removesuffix(opened).rstrip().removesuffix(r"\cdot").strip()
    return Matrix(rows, f"{factor}1" if factor in ("", "-", "+") else factor)
