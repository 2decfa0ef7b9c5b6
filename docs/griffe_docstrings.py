"""Griffe extension: prepares docstrings for the site: fences doctests and converts reStructuredText formulas."""

import re
import textwrap
from typing import Any

import griffe

_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*| *))*)", re.MULTILINE)
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`")


class Docstrings(griffe.Extension):
    """Converts `.. math::` blocks and `:math:` roles, and fences doctests."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = convert(obj.docstring.value)


def convert(text: str) -> str:
    """Replaces the formulas of one docstring."""

    def block(match: re.Match[str]) -> str:
        formula = " ".join(textwrap.dedent(match[2]).split())
        return f"{match[1]}$$\n{match[1]}{formula}\n{match[1]}$$\n\n"

    def fence(match: re.Match[str]) -> str:
        return f"{match[1]}```pycon\n{match[0]}\n{match[1]}```"

    return _DOCTEST.sub(fence, _INLINE.sub(r"$\1$", _BLOCK.sub(block, text)))
