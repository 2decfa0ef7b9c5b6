r"""Parser for answers without structure: words, numbers in a base, and expressions with units."""

import re

from mass_jax.tasks.grading.latex import closing_brace
from mass_jax.tasks.grading.units import split_unit
from mass_jax.tasks.grading.values import Based, Many, Scalar, Unreadable, Value, Words

_BASES = {name: str(i) for i, name in enumerate("two three four five six seven eight nine ten".split(), 2)}
_BASES |= {"eleven": "11", "twelve": "12", "sixteen": "16"}
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COMMANDS = frozenset(
    "frac sqrt pi theta alpha beta gamma delta epsilon lambda mu phi rho sigma tau omega infty cdot times div pm mp "
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom text degree lfloor rfloor lceil "
    "rceil overline angle triangle le ge ne in cup cap emptyset mathbb begin end setminus max min".split()
)
_PROSE = re.compile(r"[A-Za-z][A-Za-z' .\-]*")
_SHORT_WORDS = ("yes", "no", "odd")


def read_leaf(text: str) -> Value:
    r"""Parses an answer without enclosing brackets, separators or relation signs.

    Args:
        text: Part of a normalized answer.

    Returns:
        The parsed value.

    Raises:
        Unreadable: If it has an unknown command, words in an expression, or no value.

    Example:
        >>> read_leaf(r"2516_{\text{eight}}"), read_leaf("25 feet"), read_leaf("Thursday")
        (Based(digits='2516', base='8'), Scalar(latex='25', unit='foot'), Words(text='thursday'))
    """
    if text == r"\ldots":
        return Words("...")
    if words := _as_words(text):
        return words
    if based := _as_based(text):
        return based
    bare, unit = split_unit(text)
    if (inside := _inside_text(bare)) is not None:
        bare, inner = split_unit(inside.strip())
        unit = unit or inner
    if r"\pm" in bare or r"\mp" in bare:
        plus = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", bare))
        minus = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", bare))
        return Many((Scalar(_scalar(plus), unit), Scalar(_scalar(minus), unit)))
    return Scalar(_scalar(bare), unit)


def word_form(prose: str) -> str:
    """Normalizes words: removes case, punctuation and a leading article; keeps the case of letters and point names.

    Example:
        >>> word_form("(C)"), word_form("An ellipse."), word_form("i"), word_form("AB")
        ('C', 'ellipse', 'i', 'AB')
    """
    words = re.findall(r"[A-Za-z0-9']+", prose)
    if len(words) == 1 and (len(words[0]) == 1 or (len(words[0]) < 4 and words[0].isupper())):
        return words[0].lower() if words[0].lower() in _SHORT_WORDS else words[0]
    words = [word.lower() for word in words]
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _inside_text(text: str) -> str | None:
    r"""Returns the argument of a `\text{...}` that spans the whole text, or None."""
    start = text.find("{")
    if start < 0 or text[:start].rstrip() != r"\text" or closing_brace(text, start) != len(text) - 1:
        return None
    return text[start + 1 : -1]


def _as_words(text: str) -> Words | Many | None:
    r"""Parses prose: the argument of `\text`, or at least four plain letters. `\text{A, D}` is a list of words."""
    if (prose := _inside_text(text)) is not None:
        if re.search(r"[0-9\\]", prose):
            return None
        parts = [part for part in re.split(r" ?(?:[,;]|\band\b|\bor\b) ?", prose) if part.strip()]
        if len(parts) > 1 and all(len(part.split()) < 3 for part in parts):
            return Many(tuple(Words(word_form(part)) for part in parts))
    elif text.lower() in _SHORT_WORDS or (_PROSE.fullmatch(text) and re.search("[A-Za-z]{4}", text)):
        prose = text
    else:
        return None
    return Words(word_form(prose)) if word_form(prose) else None


def _as_based(text: str) -> Based | None:
    r"""Parses `152A_{11}`, `2516_{\text{eight}}` or `101_{(2)}`; returns None if the digits do not fit the base."""
    left, _, right = text.partition("_")
    base = right.replace(r"\text", "").strip(" {}()")
    base = _BASES.get(base, base)
    digits = left.replace(r"\text", "").replace("{", "").replace("}", "").replace(" ", "")
    if not base.isdecimal() or len(base) > 2 or not 2 <= int(base) <= len(_DIGITS):
        return None
    if not any(digit.isdecimal() for digit in digits) or not set(digits) <= set(_DIGITS[: int(base)]):
        return None
    return Based(digits, base)


def _scalar(text: str) -> str:
    """Checks that an expression has only known commands and no prose, and returns it without a leading plus."""
    text = text.strip()
    for command in re.findall(r"\\([a-zA-Z]+)", text):
        if command not in _COMMANDS:
            raise Unreadable("unknown command")
    if re.search(r"[A-Za-z]{9}", re.sub(r"\\[a-zA-Z]+", " ", text)):
        raise Unreadable("words in an expression")
    mixed = re.sub(r"(?<![0-9.])[0-9]+ [0-9]+ ?/ ?[0-9]", "1", text)  # 3 1/7 is a mixed number
    if re.search(r"(?<![0-9.^_])[0-9.]+ [0-9]", mixed):
        raise Unreadable("numbers side by side")
    if re.search(r"[0-9)}]'", text):
        raise Unreadable("prime after a number")
    if not text or not re.search(r"[0-9A-Za-z]", text):
        raise Unreadable("no value")
    text = text.replace(r"\angle ", "").replace(r"\angle", "").strip()
    return text.removeprefix("+").strip() if not text.startswith("-+") else "-" + text[2:]
