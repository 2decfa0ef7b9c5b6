"""Text in Markdown pages."""

from mass_jax.render.html import visible


def cell(text: str) -> str:
    r"""Escapes text for a cell of a Markdown table, so that it shows literally.

    Error messages and texts from data sets contain brackets, which would become links, and vertical bars, which would
    become columns. Underscores inside words and backslashes before letters are literal in Markdown and stay as they
    are, which is easier to read in a terminal.

    Args:
        text: untrusted text.

    Returns:
        One line. Line breaks and unprintable characters are spelled out as in `visible`.

    >>> print(cell("[tf='a'] [name='b'] x|y snake_case <i>"))
    \[tf='a'\] \[name='b'\] x\|y snake_case &lt;i>
    """
    shown = visible(text)
    return "".join(_escaped(shown[i - 1 : i], character, shown[i + 1 : i + 2]) for i, character in enumerate(shown))


def _escaped(before: str, character: str, after: str) -> str:
    """Returns a character as Markdown shows it literally between two others, which are empty at the ends."""
    if character in "<&":
        return {"<": "&lt;", "&": "&amp;"}[character]
    special = character in "`*[]|"
    special |= character == "_" and not (_in_word(before) and _in_word(after))
    special |= character == "\\" and not after.isalnum()
    return f"\\{character}" if special else character


def _in_word(character: str) -> bool:
    return character == "_" or character.isalnum()
