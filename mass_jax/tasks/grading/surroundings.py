r"""Text around a box that makes it a part of something larger: `-\boxed{5}`, `\boxed{5} million`, `\boxed{5}?`."""

import re2

from mass_jax.tasks.grading.boxes import Box
from mass_jax.tasks.grading.units import is_multiplier

_AROUND = 60
_GAP = r"(?:[ \t$]|\\[,;:! ()\[\]])*"
_BEFORE = re2.compile(
    r"(?:^|[^-])[-−]\$?$"  # a minus sign touches the box; a dash has a space
    rf"|=[ \t]*[-−]{_GAP}$"
    rf"|(?:\\(?:cdot|times|div|pm|mp|ln|lg|log|sin|cos|tan|cot|sqrt)|[0-9A-Za-z)}}] ?[+/]){_GAP}$"
    r"|[\^_][ \t]*\{?[ \t]*$"
    r"|\\[dt]?frac[ \t]*(?:\{[^{}]*\}[ \t]*)?\{[^{}]*$"
    r"|\\(?:sqrt(?:\[[^\[\]]*\])?|binom|pmatrix)[ \t]*\{[^{}]*$"
    r"|(?i:\b(?:if|suppose|assume|assuming)(?: that)?(?: the (?:final |right |correct )?answer (?:is|was|were))?)"
    rf"{_GAP}$"
)
_AFTER = re2.compile(
    rf"{_GAP}(?:/{_GAP}(?:[0-9]|[a-z]\b)|\+{_GAP}[0-9A-Za-z(\\]|[-−]{_GAP}[0-9]|×|·|\*[ \t]*[0-9]"
    r"|\\(?:cdot|times|div|pm|mp|pi|sqrt|[dt]?frac|binom)(?:[^A-Za-z]|$))"
    r"|[ \t]*(?:\^[ \t]*\{?[ \t]*[0-9A-Za-z+(-]|!+[ \t]*(?:\$|\\\)|\\\])|[²³])"
    r"|[0-9]|[a-fijknp-rt-zA-KM-Z](?:[^A-Za-z]|$)"
    r"|[\s$.*)]*\?"
)
_WORD = re2.compile(rf"{_GAP}(?:\\(?:text|mathrm|textrm)[ \t]*\{{)?[ \t]*([A-Za-z]+)")


def is_part(text: str, box: Box) -> bool:
    r"""Returns whether a box is only a part of an expression, or of a question or supposition.

    >>> from mass_jax.tasks.grading.boxes import find_boxes
    >>> texts = (r"$-\boxed{5}$", r"\boxed{5} million", r"$x=\boxed{5}$ cm", r"- \boxed{5}")
    >>> [is_part(text, find_boxes(text)[0]) for text in texts]
    [True, True, False, False]
    """
    before = text[max(0, box.start - _AROUND) : box.start]
    after = text[box.end : box.end + _AROUND]
    word = _WORD.match(after)
    if word is not None and is_multiplier(word[1]):
        return True
    return _BEFORE.search(before) is not None or _AFTER.match(after) is not None
