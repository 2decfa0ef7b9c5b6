r"""Normalizes numbers: removes digit-group separators and expands E-notation.

`10\,000`, `10{,}000` and `10 000` become `10000`; `2.5e-05` becomes `0.000025`.
"""

import re

from mass_jax.tasks.grading.values import MAX_DIGITS, Unreadable

# Separators of digit groups: a LaTeX space, a protected comma, or one space.
_SPACE = (
    r"(?:\\[,!;:> ]|~|\\(?:thin|negthin|med|thick)space(?![a-zA-Z])(?:\{\})? ?"
    r"|\\[hm](?:space|skip)\*? ?(?:\{[^{}]{0,12}\}|[0-9.]{1,4}(?:pt|em|ex|mu) ?)"
    r"|\\m?kern-?[0-9.]{1,5}(?:pt|em|ex|mu) ?)"
)
_SEPARATOR = rf"(?:{_SPACE}|\{{ ?{_SPACE} ?\}}| ?\{{ ?, ?\}}|,\\!|\\!,| )"
_MARK = "\x1f"
_BETWEEN_DIGITS = re.compile(rf"(?<=[0-9]){_SEPARATOR}{{1,2}}(?=[0-9])")
_GROUPED = re.compile(rf"[0-9.{_MARK}]+")
_E_NOTATION = re.compile(
    r"(?<![A-Za-z0-9_^.}\\])(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))[eE]([+-]?[0-9]+)(?![0-9A-Za-z_]|\.[0-9])"
)


def plain_digits(text: str) -> str:
    r"""Normalizes the numbers in an answer.

    Args:
        text: Answer of bounded length.

    Returns:
        The answer with plain digits.

    Raises:
        Unreadable: If E-notation expands to more than `MAX_DIGITS` digits.

    Example:
        >>> plain_digits(r"10\,000 + 1.5E3"), plain_digits("2e-3"), plain_digits("2e^3, 6e"), plain_digits("3 1/7")
        ('10000 + 1500', '0.002', '2e^3, 6e', '3 1/7')
    """
    text = _BETWEEN_DIGITS.sub(lambda found: _marked(found, text), text)
    if _MARK in text:
        text = _GROUPED.sub(_joined, text)
    return _E_NOTATION.sub(_expanded, text)


def _marked(found: re.Match[str], text: str) -> str:
    """Replaces a separator with a mark, or with a space before a fraction, as in 3 125/1000."""
    rest = text[found.end() :].lstrip("0123456789").lstrip(" ")
    return " " if rest.startswith("/") else _MARK


def _joined(found: re.Match[str]) -> str:
    r"""Joins groups of three digits; keeps other groups apart, also after an index as in `\log_2 125`."""
    token = found[0]
    before = found.string[found.start() - 1 : found.start()]
    if before in ("_", "^") or before.isalpha():
        return token.replace(_MARK, " ")
    whole, _, decimals = token.partition(".")
    groups, rest = whole.split(_MARK), decimals.split(_MARK)
    fits = len(groups) == 1 or (1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]))
    fits = fits and (len(rest) == 1 or (all(len(group) == 3 for group in rest[:-1]) and 1 <= len(rest[-1]) <= 3))
    return token.replace(_MARK, "" if fits and "." not in decimals else " ")


def _expanded(found: re.Match[str]) -> str:
    """Expands a number in E-notation."""
    decimals = found[2] or found[3] or ""
    digits = (found[1] or "") + decimals
    if len(found[4]) > 4 or abs(int(found[4])) + len(digits) > MAX_DIGITS:
        raise Unreadable("too many digits")
    point = len(digits) - len(decimals) + int(found[4])
    digits = "0" * max(0, 1 - point) + digits + "0" * max(0, point - len(digits))
    point = max(1, point)
    whole, fraction = digits[:point].lstrip("0") or "0", digits[point:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
