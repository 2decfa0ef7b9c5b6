"""HTML rendering: jinja2 with autoescape and strict undefined names; unprintable characters are spelled out."""

import unicodedata
from typing import Any

import jinja2
from markupsafe import Markup


def visible(text: str, keep: str = "") -> str:
    r"""Spells out characters that would be invisible, reorder a line, or not encode (controls, bidi, surrogates).

    Args:
        text: untrusted text.
        keep: characters to leave unchanged, besides the plain space.

    >>> visible("a\u202eb\x00 c\n", keep="\n")
    'a\\u202eb\\u0000 c\n'
    """
    return "".join(c if c == " " or c in keep or unicodedata.category(c)[0] not in "CZ" else _code(c) for c in text)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def number(value: Any) -> Any:
    """Formats floats with three digits and None as the empty string; returns other values unchanged.

    >>> number(0.12345), number(12345), number(None), number("nan")
    ('0.123', 12345, '', 'nan')
    """
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else value


def environment(package: str, keep: str = "") -> jinja2.Environment:
    """Returns an environment with the templates of a package, which may extend `base.html.jinja` of this one.

    Every printed value passes through `visible` and is then escaped.

    Args:
        package: dotted name of the package; usually `__package__`.
        keep: see `visible`.
    """

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else visible(str(value), keep)

    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader(__package__)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["number"] = number
    return made
