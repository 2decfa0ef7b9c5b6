r"""What kind of thing an answer is: number or expression, list, tuple or interval, union, matrix, relation, or words.

math-verify's parser is good at expressions; which brackets mean what, and which parts may change places, is decided
here, because a verifier that takes (0,1] for [0,1] or "dayMon" for Monday rewards what is wrong.
"""

import dataclasses
import re
from typing import TypeAlias

from mass_jax.tasks.math.latex import closing_brace, normalize, split_top, to_ascii
from mass_jax.tasks.math.units import split_unit

MAX_ANSWER_CHARS = 1000
MAX_DEPTH = 24
MAX_ITEMS = 64
MAX_DIGITS = 400


class Unreadable(ValueError):
    """Text that is no answer; the message is a short reason that is counted."""


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A number or expression in LaTeX, and its canonical unit."""

    latex: str
    unit: str = ""


@dataclasses.dataclass(frozen=True)
class Words:
    """Prose such as `Monday`; compared as words, never as a product of letters."""

    text: str


@dataclasses.dataclass(frozen=True)
class Based:
    """A number written in a base: digits, and the base as it was written."""

    digits: str
    base: str


@dataclasses.dataclass(frozen=True)
class Many:
    """Several answers in any order: a list, a set, or (`union`) a union of sets."""

    items: "tuple[Value, ...]"
    union: bool = False


@dataclasses.dataclass(frozen=True)
class Ordered:
    """Tuple or interval, with the brackets that opened and closed it."""

    brackets: str
    items: "tuple[Value, ...]"


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows of cells, times a factor in LaTeX."""

    rows: "tuple[tuple[Value, ...], ...]"
    factor: str = "1"


@dataclasses.dataclass(frozen=True)
class Relation:
    """A chain of expressions with the signs between them: = < > le ge ne."""

    parts: "tuple[Value, ...]"
    signs: tuple[str, ...]


Value: TypeAlias = Scalar | Words | Based | Many | Ordered | Matrix | Relation

_BASES = {name: str(i) for i, name in enumerate("two three four five six seven eight nine ten".split(), 2)}
_COMMANDS = frozenset(
    "frac sqrt pi theta alpha beta gamma delta epsilon lambda mu phi rho sigma tau omega infty cdot times div pm mp "
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom text degree lfloor rfloor lceil "
    "rceil overline angle triangle le ge ne in cup cap emptyset mathbb begin end langle rangle setminus max min".split()
)
_LIST_WORDS = r"\s*(?:,|;)?\s*(?:\\text\{\s*(?:,\s*)?(?:and|or)\s*\}|\b(?:and|or)\b)\s*|[,;]"
_OR = r"\s*,?\s*(?:\\text\{\s*or\s*\}|\bor\b)\s*"
_INEQUALITY = r"[<>]|\\(?:le|ge)(?![a-zA-Z])"
_SIGNS = r"\\(?:le|ge|ne)(?![a-zA-Z])|[=<>]"


def read(text: str) -> Value:
    r"""The structure of an answer.

    Args:
        text: an answer alone, in LaTeX or plain, from anyone.

    Raises:
        Unreadable: for what is no answer, with a reason.

    >>> read(r"(0,\tfrac12]")
    Ordered(brackets='(]', items=(Scalar(latex='0', unit=''), Scalar(latex='\\frac{1}{2}', unit='')))
    >>> read(r"\text{Monday}")
    Words(text='monday')
    >>> read("__import__('os')")
    Traceback (most recent call last):
    ...
    mass_jax.tasks.math.answer.Unreadable: unknown characters
    """
    screen(text)
    return _read(normalize(text), 0)


def screen(text: str) -> None:
    """Lets only pass what an answer can consist of: few ASCII characters, shallow brackets, no endless numbers.

    Raises:
        Unreadable: with the reason.
    """
    if not text.strip():
        raise Unreadable("empty")
    if len(text) > MAX_ANSWER_CHARS:
        raise Unreadable("too long")
    text = to_ascii(text)
    # No quotes, underscores doubled, backticks, @ or #: no Python could be spelled, were it ever to meet an evaluator.
    if not re.fullmatch(r"[0-9A-Za-z\s\\{}()\[\]+\-*/^_=<>|.,:;!&%$~']*", text) or re.search(r"__|'\w|\(\s*'", text):
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
    text = text.strip()
    if depth > MAX_DEPTH:
        raise Unreadable("too deep")
    if not text:
        raise Unreadable("empty part")
    text = re.sub(r"^\\?[A-Za-z]\s*\\in(?![a-zA-Z])\s*", "", text)
    if matrix := _read_matrix(text, depth):
        return matrix
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return Many(())
    if re.fullmatch(r"\\mathbb\s*\{?R\}?", text):
        return Ordered("()", (Scalar(r"-\infty"), Scalar(r"\infty")))
    if re.fullmatch(r"[^0-9,;()\[\]]*[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?[^0-9,;()\[\]]*(?:\^\{?[23]\}?)?", text):
        text = text.replace(",", "")  # 1,250 is a number; a list has spaces or other lengths
    alternatives = split_top(text, _OR)
    if len(alternatives) > 1 and all(re.search(_INEQUALITY, part) for part in alternatives):
        return Many(tuple(_read(part, depth + 1) for part in alternatives), union=True)
    parts = split_top(text, _LIST_WORDS)
    if len(parts) > 1:
        return _many([part for part in parts if part.strip()], depth)
    unions = split_top(text, r"\\cup(?![a-zA-Z])")
    if len(unions) > 1:
        return Many(tuple(_read(part, depth + 1) for part in unions), union=True)
    return _read_relation(text, depth) or _read_brackets(text, depth) or _read_leaf(text)


def _many(parts: list[str], depth: int) -> Many:
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    items: list[Value] = []
    for part in parts:
        value = _read(part, depth + 1)
        items += value.items if isinstance(value, Many) and r"\pm" in part else [value]
    return Many(tuple(items))


def _read_relation(text: str, depth: int) -> Relation | None:
    parts = split_top(text, _SIGNS)
    if len(parts) < 2:
        return None
    if len(parts) > 6:
        raise Unreadable("too many items")
    signs = re.findall(_SIGNS, re.sub(r"\{[^{}]*\}", "", text))
    if len(signs) != len(parts) - 1:
        raise Unreadable("relation inside an expression")
    return Relation(tuple(_read(part, depth + 1) for part in parts), tuple(sign.lstrip("\\") for sign in signs))


def _read_brackets(text: str, depth: int) -> Value | None:
    """Sets, tuples, intervals; None if the brackets do not go around the whole, or are only parentheses."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        value = _read(text[2:-2], depth + 1)
        return value if isinstance(value, Many) and not value.union else Many((value,))
    if text.startswith(r"\langle") and text.endswith(r"\rangle"):
        text = "(" + text.removeprefix(r"\langle").removesuffix(r"\rangle") + ")"
    if text[0] not in "([" or text[-1] not in ")]" or not _encloses(text):
        return None
    parts = split_top(text[1:-1], "[,;]")
    if len(parts) == 1:
        return _read(text[1:-1], depth + 1) if text[0] + text[-1] in ("()", "[]") else None
    if len(parts) > MAX_ITEMS:
        raise Unreadable("too many items")
    return Ordered(text[0] + text[-1], tuple(_read(part, depth + 1) for part in parts))


def _encloses(text: str) -> bool:
    """Whether the first bracket closes with the last character, and no sooner."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if depth == 0:
            return i == len(text) - 1
    return False


def _read_matrix(text: str, depth: int) -> Matrix | None:
    r"""`factor \begin{pmatrix} a & b \\ c & d \end{pmatrix}`, in any of its environments."""
    found = re.fullmatch(
        r"([^&]*?)(?:\\cdot\s*)?[(\[]?\s*\\begin\{([pb]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\2\}\s*[)\]]?", text
    )
    if found is None:
        return None
    if "begin" in found[3]:
        raise Unreadable("matrix in a matrix")
    lines = [line for line in re.split(r"\\\\(?:\s*\[[^\]]*\])?", found[3]) if line.strip()]
    rows = tuple(tuple(_read(cell, depth + 1) for cell in split_top(line, "&")) for line in lines)
    if not rows or len({len(row) for row in rows}) != 1 or len(rows) * len(rows[0]) > MAX_ITEMS:
        raise Unreadable("rows of a matrix differ")
    return Matrix(rows, found[1].strip() or "1")


def _read_leaf(text: str) -> Value:
    if words := _as_words(text):
        return words
    based = re.fullmatch(
        r"([0-9A-Z ]*[0-9][0-9A-Z ]*(?:\\text\{[A-Z]\})?)_\s*\{?\s*\(?(?:\\text\{)?\s*(\w+)\s*\}?\)?\s*\}?", text
    )
    if based:
        return Based(re.sub(r"\\text|[{} ]", "", based[1]), _BASES.get(based[2], based[2]))
    bare, unit = split_unit(text)
    if inner := re.fullmatch(r"\\text\s*\{([^{}]*)\}", bare):
        bare = inner[1].strip()
    if r"\pm" in bare or r"\mp" in bare:
        plus = re.sub(r"\\pm(?![a-zA-Z])", "+", re.sub(r"\\mp(?![a-zA-Z])", "-", bare))
        minus = re.sub(r"\\pm(?![a-zA-Z])", "-", re.sub(r"\\mp(?![a-zA-Z])", "+", bare))
        return Many((Scalar(_scalar(plus), unit), Scalar(_scalar(minus), unit)))
    return Scalar(_scalar(bare), unit)


def _as_words(text: str) -> Words | Many | None:
    r"""Prose: all of it inside `\text`, or four plain letters and more. `\text{A, D}` is a list of words."""
    inner = re.fullmatch(r"\\text\s*\{(.*)\}", text)
    if inner and closing_brace(text, text.index("{")) == len(text) - 1:
        prose = inner[1]
        if re.search(r"[0-9\\]", prose):
            return None
        parts = [part for part in re.split(r"\s*(?:,|;|\band\b|\bor\b)\s*", prose) if part.strip()]
        if len(parts) > 1 and all(len(part.split()) < 3 for part in parts):
            return Many(tuple(Words(word_form(part)) for part in parts))
    elif re.fullmatch(r"(?i)yes|no|odd|(?=.*[a-z]{4})[a-z][a-z' .\-]{2,}[a-z]", text):
        prose = text
    else:
        return None
    return Words(word_form(prose)) if word_form(prose) else None


def word_form(prose: str) -> str:
    """Words without case, punctuation and article.

    >>> word_form("(C)"), word_form("An ellipse.")
    ('c', 'ellipse')
    """
    words = re.findall(r"[a-z0-9']+", prose.lower())
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def _scalar(text: str) -> str:
    """Checks the commands of an expression: the ones whose meaning is known to be an expression, no others."""
    text = text.strip()
    for command in re.findall(r"\\([a-zA-Z]+)", text):
        if command not in _COMMANDS:
            raise Unreadable("unknown command")
    if re.search(r"[A-Za-z]{9}", re.sub(r"\\[a-zA-Z]+", " ", text)):
        raise Unreadable("words in an expression")
    if re.search(
        r"(?<![0-9.^_])[0-9.]+\s+[0-9]", re.sub(r"[0-9]+\s+[0-9]+\s*/\s*[0-9]+", "1", text)
    ):  # but 3 1/7 is mixed
        raise Unreadable("numbers side by side")
    if not text or not re.search(r"[0-9A-Za-z]", text):
        raise Unreadable("no value")
    return re.sub(r"^(-?)\+", r"\1", re.sub(r"\\angle\s*", "", text)).strip()
