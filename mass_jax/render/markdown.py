"""Text in Markdown pages."""

import re

from mass_jax.render.html import visible

# Underscores inside words and backslashes before letters are literal, and without escapes easier to read in a terminal.
_SPECIAL = re.compile(r"[`*\[\]|]|(?<!\w)_|_(?!\w)|\\(?=\W|_|$)")


def cell(text: str) -> str:
    r"""Escapes text for a cell of a Markdown table, so that it shows literally.

    Error messages and texts from data sets contain brackets, which would become links, and vertical bars, which would
    become columns.

    Args:
        text: untrusted text.

    Returns:
        One line. Line breaks and unprintable characters are spelled out as in `visible`.

    >>> print(cell("[tf='a'] [name='b'] x|y snake_case <i>"))
    \[tf='a'\] \[name='b'\] x\|y snake_case &lt;i>
    """
    return _SPECIAL.sub(r"\\\g<0>", visible(text)).replace("&", "&amp;").replace("<", "&lt;")
