"""Text functions for LaTeX: balanced braces, top-level separators, and normalization of notation.

Nothing here evaluates text. Patterns have no nested repetition, so running time is linear in the length of the text.
"""

import itertools
import re
from collections.abc import Callable

from mass_jax.tasks.grading.digits import plain_digits

_OPENING, _CLOSING = "{[(", "}])"

# Characters replaced by LaTeX commands; any other non-ASCII character makes an answer unreadable.
_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "θ": r"\theta ",
    "√": r"\sqrt ", "∞": r"\infty ", "°": r"^\circ ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∈": r"\in ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "²": "^2", "³": "^3", "ℝ": r"\mathbb{R}", "…": r"\ldots ", "≈": r"\approx ",
    "∶": ":", "′": "'", "⟨": r"\langle ", "⟩": r"\rangle ", "∖": r"\setminus ", "€": r"\text{ euro}", "≦": r"\le ",
    "≧": r"\ge ",
    **dict.fromkeys("\u00a0\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f", "~"),
}  # fmt: skip

_FONTS = r"(?:mathrm|mathbf|mathit|mathsf|mbox|textbf|textrm|textit|textnormal|textsf|hbox|operatorname|rm|bf)"

_SPACE = (
    r"(?<!\\)\\(?:[!,;:> ]|(?:quad|qquad|(?:neg)?(?:thin|med|thick)space|enspace)(?![a-zA-Z]))"
    r"|\\[hm]space\*?\{[^{}]*\}|~"
)


_CHOOSE = r"(?<![A-Za-z\\])(?:\\text\{C\}|\{C\}|C)"
_INDEX = r"(?:\{[0-9]{1,3}\}|[0-9])"


def _combinations(found: re.Match[str]) -> str:
    r"""Rewrites `C_5^2` as a binomial if the numbers permit it."""
    total, chosen = (int((group or "0").strip("{}")) for group in (found[1] or found[4], found[2] or found[3]))
    return rf"\binom{{{total}}}{{{chosen}}}" if chosen <= total else found[0]


_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:displaystyle|textstyle|limits|big|Big|bigg|Bigg|bigl|bigr|Bigl|Bigr)(?![a-zA-Z])", ""),
        (r"\\(?:left|right)(?![a-zA-Z])\.?", ""),
        (_SPACE, " "),
        (r"\\(?:[dtc]frac|nicefrac|sfrac)(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:lbrace|lbrack)(?![a-zA-Z])", lambda m: r"\{" if "ce" in m[0] else "["),
        (r"\\(?:rbrace|rbrack)(?![a-zA-Z])", lambda m: r"\}" if "ce" in m[0] else "]"),
        (r"\\(?:[lr]?vert|mid)(?![a-zA-Z])", "|"),
        (r"\\(?:leq|leqslant|leqq|le)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|geqq|ge)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\(?:neq|ne|not ?=)(?![a-zA-Z])|(?<![0-9)!])!=", r"\\ne "),  # 5!= is a factorial
        (r"\\(?:approx|simeq|thickapprox|doteq)(?![a-zA-Z])", r"\\approx "),
        (r"\\(?:lt|gt)(?![a-zA-Z])", lambda m: "<" if "l" in m[0] else ">"),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"(?:\\|(?<![A-Za-z\\]))lg(?![a-zA-Z])|\\log ?_ ?10(?![0-9])", r"\\log_{10} "),
        (r"\\vec(?![a-zA-Z]) ?", ""),
        (r"\\overrightarrow(?![a-zA-Z])", r"\\overline"),
        (r"\\colon(?![a-zA-Z]) ?", ":"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:degree|circ)(?![a-zA-Z])", r"\\circ"),
        (r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ\s*", r"\\degree "),
        (r"(?<!\^)\\circ\s*", r"\\degree "),
        (rf"\\{_FONTS}(?=\s*\{{)", r"\\text"),
        (rf"{_CHOOSE}_({_INDEX})\^({_INDEX})|{_CHOOSE}\^({_INDEX})_({_INDEX})", _combinations),
        (r"\\text ?\{[ ~]*([ei])[ ~]*\}", r"\1"),
        (r"\^ ?(-[0-9]{1,4}|-[a-zA-Z])", r"^{\1}"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (r"(?<![A-Za-z\\])(sin|cos|tan|cot|csc|ln|log|sqrt)(?![A-Za-z])", r"\\\1 "),
        (r"\\text\s*\{\s*\\?([%$])\s*\}", r"\\\1"),
        (r"(?<!\\)([%$])", r"\\\1"),
        (r"\\(?:ldots|dots|cdots|dotsc|dotsb)(?![a-zA-Z])|\.\.\.+", r" \\ldots "),
        (r"\\(?:underline|ensuremath)(?= ?\{)", ""),
    )
)


_NEEDS_REWRITING = re.compile(r"[\\~<>!%$C^]|\.\.|pi|sin|cos|tan|cot|csc|ln|lg|log|sqrt")


def to_ascii(text: str) -> str:
    """Replaces non-ASCII mathematical characters with LaTeX commands; keeps other characters.

    Example:
        >>> to_ascii("3√2 − π")
        '3\\\\sqrt{2} - \\\\pi '
    """
    if text.isascii():
        return text
    text = re.sub(r"√\s*([0-9]+)", r"\\sqrt{\1}", text)  # without braces, \sqrt88 is the root of the first digit
    return text.translate({ord(char): latex for char, latex in _UNICODE.items()})


def closing_brace(text: str, start: int) -> int | None:
    r"""Returns the position where the group opened at `text[start]` closes, or None. Ignores `\{` and `\}`.

    Example:
        >>> closing_brace(r"{a{b}\}c}d", 0)
        8
    """
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return None


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{...}` or `\fbox{...}`; None if there is none or it is truncated.

    Example:
        >>> last_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> last_boxed(r"so \boxed{\frac{1}{2")
    """
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if start < 0:
        return None
    command = r"\boxed" if text.startswith(r"\boxed", start) else r"\fbox"
    rest = text[start + len(command) :].lstrip()
    if rest.startswith("{"):
        end = closing_brace(rest, 0)
        return None if end is None else rest[1:end].strip()
    return re.split(r"[\s$.,;]", rest, maxsplit=1)[0] or None  # for example, \boxed 7


def split_top(text: str, separator: re.Pattern[str]) -> list[str]:
    r"""Splits a text at a separator outside brackets; brackets of different kinds may match, as in `(0,1]`.

    Example:
        >>> split_top("(0,1],[2,3),4", re.compile(","))
        ['(0,1]', '[2,3)', '4']
    """
    return split_signs(text, separator)[0]


def split_signs(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    r"""Splits like `split_top`, and also returns the separators.

    Example:
        >>> split_signs("f(x=1) < 2", re.compile("[<=]"))
        (['f(x=1) ', ' 2'], ['<'])
    """
    found = [match for match in separator.finditer(text) if match.end() > match.start()]
    if not found:
        return [text], []
    depths = _depths(text)
    found = [match for match in found if depths[match.start()] == 0]
    starts = [0, *(match.end() for match in found)]
    ends = [*(match.start() for match in found), len(text)]
    return [text[i:j] for i, j in zip(starts, ends, strict=True)], [match[0] for match in found]


def _depths(text: str) -> list[int]:
    r"""Returns the bracket depth before each character, plus 1 for a character that a backslash escapes."""
    depths, depth, escaped = [], 0, False
    for char in text:
        depths.append(depth + escaped)
        if char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth = max(0, depth - 1)
        escaped = char == "\\" and not escaped
    return depths


def normalize(text: str) -> str:
    r"""Normalizes the notation of an answer: fonts, spaces, signs, fractions, roots, wrappers and trailing periods.

    Example:
        >>> normalize(r"$\displaystyle \dfrac12$.")
        '\\frac{1}{2}'
        >>> normalize("−3{,}000 √2")
        '-3000 \\sqrt{2}'
    """
    text = _unwrap(_without_delimiters(to_ascii(text)).strip())
    text = plain_digits(text)
    if _NEEDS_REWRITING.search(text):
        for pattern, replacement in _REWRITES:
            text = pattern.sub(replacement, text)
    text = _brace_arguments(_brace_arguments(_round_angles(_brace_roots(text)), r"\frac", 2), r"\sqrt", 1)
    text = " ".join(text.split()).rstrip(".").strip()
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return _unwrap(text)


def _without_delimiters(text: str) -> str:
    r"""Removes pairs of `$` and the delimiters `\(`, `\)`, `\[` and `\]`; an unpaired `$` is a dollar sign."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text)
    marks = re.findall(r"(?<!\\)\$", text)
    return re.sub(r"(?<!\\)\$", "", text) if marks and len(marks) % 2 == 0 else text


def _brace_roots(text: str) -> str:
    r"""Rewrites `\sqrt(2)` as `\sqrt{2}`.

    Example:
        >>> _brace_roots(r"3\sqrt (x+(1)) + \sqrt(2)")
        '3\\sqrt{x+(1)} + \\sqrt{2}'
    """
    head, *tails = text.split(r"\sqrt")
    for i, tail in enumerate(tails):
        inside = tail.lstrip()
        depth = 0
        for j, char in enumerate(inside if inside.startswith("(") else ""):
            depth += (char == "(") - (char == ")")
            if depth == 0:
                tails[i] = "{" + inside[1:j] + "}" + inside[j + 1 :]
                break
    return r"\sqrt".join([head, *tails])


def _round_angles(text: str) -> str:
    """Rewrites a vector `<1,2>` with parentheses; other < and > remain relations.

    Example:
        >>> _round_angles("v = <1,2>"), _round_angles("1<x, y>2")
        ('v = (1,2)', '1<x, y>2')
    """
    signs = [i for i, char in enumerate(text) if char in "<>"]
    for i, j in itertools.pairwise(signs):
        inside, before = text[i + 1 : j], text[:i].rstrip()
        if text[i] + text[j] == "<>" and "," in inside and "=" not in inside and (not before or before[-1] in "=,({"):
            text = text[:i] + "(" + inside + ")" + text[j + 1 :]
    return text


def _unwrap(text: str) -> str:
    """Removes a box, braces and white space that enclose the whole text."""
    for _ in range(4):
        text = text.strip()
        head = text.split("{", 1)[0].rstrip()
        if head not in ("", r"\boxed", r"\fbox") or not text.endswith("}"):
            break
        start = text.index("{")
        if closing_brace(text, start) != len(text) - 1:
            break
        text = text[start + 1 : -1]
    return text


def _brace_arguments(text: str, command: str, count: int) -> str:
    r"""Adds braces around bare arguments: `\frac12` becomes `\frac{1}{2}`, `\sqrt3` becomes `\sqrt{3}`."""
    head, *tails = re.split(re.escape(command) + r"(?![a-zA-Z])", text)
    for tail in reversed(range(len(tails))):
        rest = tails[tail].lstrip()
        option = re.match(r"\[[^\]]*\]\s*", rest) if command == r"\sqrt" else None
        prefix, rest = (option[0].strip(), rest[option.end() :]) if option else ("", rest)
        for _ in range(count):
            rest = rest.lstrip()
            if rest.startswith("{"):
                end = closing_brace(rest, 0)
                argument, rest = (rest[: end + 1], rest[end + 1 :]) if end is not None else (rest, "")
            else:
                bare = re.match(r"\\frac\{[^{}]*\}\{[^{}]*\}|\\[a-zA-Z]+|.", rest)
                argument, rest = ("{" + bare[0] + "}", rest[bare.end() :]) if bare else ("", "")
            prefix += argument
        tails[tail] = prefix + rest
    return head + "".join(command + tail for tail in tails)
