r"""Joins several boxes that form one answer, such as `$x=\boxed{2}$ and $x=\boxed{3}$`; rejects denied boxes."""

from collections.abc import Sequence

import re2

from mass_jax.tasks.grading.answer import MAX_ITEMS, Unreadable
from mass_jax.tasks.grading.boxes import Box
from mass_jax.tasks.grading.surroundings import is_part

_MAX_GAP = 80
_AROUND = 60  # characters before and after a box that are checked for denials

_SPACE = r"(?:[\s$*~]|\\[()\[\],;:! ]|\\q?quad)*"
_NAME = r"\\?[A-Za-z]{1,8}(?:_\{?[0-9A-Za-z]{1,4}\}?)?(?:\([a-z0-9]\))?"
_JOINT = re2.compile(
    rf"(?i){_SPACE}(?:[,;]?{_SPACE}(?:\\text\{{)?\s*,?\s*(?:and|or)\s*\}}?|[,;&]){_SPACE}(?:{_NAME}\s*=|{_NAME}\s*\\in)?{_SPACE}"
)
# Text between boxes that may be parts of one answer: empty, the number of a part, or words that end in "and" or "or".
_UNCLEAR = re2.compile(
    rf"(?i){_SPACE}[.,;]?{_SPACE}(?:\(?(?:[0-9]{{1,2}}|[a-z]|i{{1,3}}|iv)[).:])?{_SPACE}(?:{_NAME}\s*=)?{_SPACE}"
    rf"|(?:[^.\n]|\.[^\s.])*[\s,;$](?:and|or){_SPACE}(?:{_NAME}\s*=)?{_SPACE}"
)
_NAMED = re2.compile(rf"(?:^|[\s$(,]|\\\()({_NAME})\s*=[\s$(]*$")
_DENIED_BEFORE = re2.compile(
    r"(?i)(?:\bnot|n't|\bnever|\bcannot|\binstead of|\brather than|\\neq?|≠"
    r"|\b(?:wrong|incorrect|previous|earlier|old) (?:answer|value|result|one)(?: is| was| of|:)?)"
    r"(?:\s+(?:be|is|equal|to|the|final|correct|answer|simply|just|exactly|a|of|\$?[a-z]\s*=))*[\s$:({=\\\[*]*$"
)
_AFTER = r"[\s$*.,)\]\\]*"
_DENIED_AFTER = re2.compile(
    rf"(?i){_AFTER}\(?(?:that |which |this |it )?"
    r"(?:(?:is|was|would be|seems|looks|turns out to be|cannot be|can't be)\s+(?:[a-z]+ly )?)?"
    r"(?:wrong|incorrect|not (?:the|correct|right|valid|possible|an)\b|impossible|the wrong)"
    rf"|{_AFTER}(?:isn't|wasn't) (?:the|correct|right|valid|possible)\b"
)


def join_boxes(text: str, boxes: Sequence[Box]) -> tuple[str, int]:
    r"""Joins the last boxes of a text to one answer.

    Backward from the last box, boxes form a list while they are separated only by a comma, "and" or "or", optionally
    with the name of a variable. Distinct names are kept, since they assign the values.

    Args:
        text: The response.
        boxes: Its boxes, at least one.

    Returns:
        The answer, and the index of its first box.

    Raises:
        Unreadable: If there are too many boxes, different boxes may be parts of one answer ("\boxed{2} cats and
            \boxed{3} dogs"), the text denies a box, or a box is part of an expression ("-\boxed{2}").

    Example:
        >>> from mass_jax.tasks.grading.boxes import find_boxes
        >>> text = r"First \boxed{1}. So $x=\boxed{2}$ or $x=\boxed{3}$."
        >>> join_boxes(text, find_boxes(text))
        ('2, 3', 1)
    """
    first = len(boxes) - 1
    while first > 0:
        gap = text[boxes[first - 1].end : boxes[first].start]
        if len(gap) > _MAX_GAP:
            break
        if not _JOINT.fullmatch(gap):
            if _UNCLEAR.fullmatch(gap) and _compact(boxes[first - 1]) != _compact(boxes[first]):
                raise Unreadable("several answers")
            break
        first -= 1
        if len(boxes) - first > MAX_ITEMS:
            raise Unreadable("too many items")
    chosen = boxes[first:]
    if any(_is_denied(text, box) for box in chosen):
        raise Unreadable("answer denied")
    if any(is_part(text, box) for box in chosen):
        raise Unreadable("box inside an expression")
    names = [_name_before(text, box) for box in chosen]
    if len(chosen) > 1 and all(names) and len(set(names)) == len(names):
        return ", ".join(f"{name}={box.content}" for name, box in zip(names, chosen, strict=True)), first
    contents = {_compact(box): box.content for box in chosen}
    return ", ".join(contents.values()), first


def _compact(box: Box) -> str:
    return "".join(box.content.split())


def _is_denied(text: str, box: Box) -> bool:
    before = text[max(0, box.start - _AROUND) : box.start]
    after = text[box.end : box.end + _AROUND]
    return _DENIED_BEFORE.search(before) is not None or _DENIED_AFTER.match(after) is not None


def _name_before(text: str, box: Box) -> str:
    found = _NAMED.search(text[max(0, box.start - _AROUND) : box.start])
    return found[1] if found else ""
