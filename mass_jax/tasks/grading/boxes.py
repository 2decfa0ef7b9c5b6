r"""Finds `\boxed{...}` and `\fbox{...}` in a response, in one pass."""

from typing import NamedTuple

from mass_jax.tasks.grading.answer import Unreadable

_COMMANDS = ("\\boxed", "\\fbox")
_BARE_ENDS = " \t\n\r\f\v$;"


class Box(NamedTuple):
    """One box in a text.

    Attributes:
        start: Position of the command.
        end: Position after the box.
        content: Content without surrounding spaces.
    """

    start: int
    end: int
    content: str


def has_box(text: str) -> bool:
    """Returns whether a text contains a box command."""
    return any(command in text for command in _COMMANDS)


def find_boxes(text: str) -> list[Box]:
    r"""Finds the outermost boxes of a text, in time linear in its length.

    Args:
        text: LaTeX or prose.

    Returns:
        The boxes in order. Nested boxes are part of the content of the outer box.

    Raises:
        Unreadable: If a box never closes, as in a truncated response.

    Example:
        >>> [box.content for box in find_boxes(r"so \boxed{1}, no, \boxed{\frac{1}{2}} or \boxed 3.")]
        ['1', '\\frac{1}{2}', '3']
    """
    found: list[Box] = []
    i = min((at for command in _COMMANDS if (at := text.find(command)) >= 0), default=len(text))
    start = opened = -1  # of the open box, if any
    depth, size = 0, len(text)
    while i < size:
        char = text[i]
        if char == "\\":
            command = _command_at(text, i) if start < 0 else ""
            if not command:
                i += 1 if start < 0 else 2  # inside a box, skip escaped braces
                continue
            at = _skip_spaces(text, i + len(command))
            if at < size and text[at] == "{":
                start, opened, depth, i = i, at + 1, 1, at + 1
                continue
            end = _end_of_bare(text, at)
            if at == size:
                raise Unreadable("box cut off")
            if end > at:
                found.append(Box(i, end, text[at:end]))
            i = max(end, at)
            continue
        if start >= 0:
            depth += (char == "{") - (char == "}")
            if depth == 0:
                found.append(Box(start, i + 1, text[opened:i].strip()))
                start = -1
        i += 1
    if start >= 0:
        raise Unreadable("box cut off")
    return found


def _command_at(text: str, i: int) -> str:
    r"""Returns the box command at a position, or "" for another command such as `\boxedx`."""
    for command in _COMMANDS:
        if text.startswith(command, i):
            following = text[i + len(command) : i + len(command) + 1]
            return "" if following.isalpha() else command
    return ""


def _skip_spaces(text: str, i: int) -> int:
    while i < len(text) and text[i].isspace():
        i += 1
    return i


def _end_of_bare(text: str, i: int) -> int:
    r"""Returns the end of the content of a box without braces; that of `\boxed 3.5.` is 3.5."""
    while i < len(text) and text[i] not in _BARE_ENDS:
        if text[i] in ".," and not text[i + 1 : i + 2].isdigit():
            break
        if text.startswith(("\\)", "\\]"), i):
            break
        i += 1
    return i
