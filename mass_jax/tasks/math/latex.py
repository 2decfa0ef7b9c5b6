"""Reading LaTeX as text: braces, top-level separators, and one spelling for the many that people use.

Pure text functions: nothing here evaluates anything. All of them take time linear in their input.
"""

import re
from collections.abc import Callable

_OPENING, _CLOSING = "{[(", "}])"

# Characters that stand for a LaTeX command; any other character beyond ASCII makes an answer unreadable.
_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "π": r"\pi ", "θ": r"\theta ",
    "√": r"\sqrt ", "∞": r"\infty ", "°": r"^\circ ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∈": r"\in ", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}", "²": "^2", "³": "^3", "ℝ": r"\mathbb{R}", "…": r"\ldots ", "\u00a0": " ",
}  # fmt: skip

_FONTS = r"(?:mathrm|mathbf|mathit|mathsf|mbox|textbf|textrm|textit|textnormal|textsf|hbox|operatorname|rm|bf)"

_REWRITES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:displaystyle|textstyle|limits|big|Big|bigg|Bigg|bigl|bigr|Bigl|Bigr)(?![a-zA-Z])", ""),
        (r"\\(?:left|right)(?![a-zA-Z])\.?", ""),
        (r"(?<=\d)(?:\\[!,]|\{,\}|,\\!)+(?=\d{3}(?!\d))", ""),  # 10,\!010 and 10{,}010
        (r"(?<!\\)\\(?:[!,;: ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|~", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:lbrace|lbrack)(?![a-zA-Z])", lambda m: r"\{" if "ce" in m[0] else "["),
        (r"\\(?:rbrace|rbrack)(?![a-zA-Z])", lambda m: r"\}" if "ce" in m[0] else "]"),
        (r"\\[lr]?vert(?![a-zA-Z])", "|"),
        (r"\\(?:leq|leqslant|le)(?![a-zA-Z])", r"\\le "),
        (r"\\(?:geq|geqslant|ge)(?![a-zA-Z])", r"\\ge "),
        (r"\\(?:neq|ne)(?![a-zA-Z])", r"\\ne "),
        (r"\\(?:lt|gt)(?![a-zA-Z])", lambda m: "<" if "l" in m[0] else ">"),
        (r"\\colon(?![a-zA-Z])", ":"),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
        (r"\\(?:degree|circ)(?![a-zA-Z])", r"\\circ"),
        (r"\^\s*\{\s*\\circ\s*\}|\^\s*\\circ\s*", r"\\degree "),
        (r"(?<!\^)\\circ\s*", r"\\degree "),
        (rf"\\{_FONTS}(?=\s*\{{)", r"\\text"),
        (r"\\text\s*\{\s*~?i\s*\}", "i"),
        (r"\\text\s*\{\s*\\?([%$])\s*\}", r"\\\1"),
        (r"(?<!\\)([%$])", r"\\\1"),
        (r"\\(?:ldots|dots|cdots)(?![a-zA-Z])", " "),
    )
)


def to_ascii(text: str) -> str:
    """Mathematical characters beyond ASCII as LaTeX commands; other characters stay as they are.

    >>> to_ascii("3√2 − π")
    '3\\\\sqrt{2} - \\\\pi '
    """
    if text.isascii():
        return text
    text = re.sub(r"√\s*([0-9]+)", r"\\sqrt{\1}", text)  # of the whole number, where \sqrt88 is of its first digit
    return text.translate({ord(char): latex for char, latex in _UNICODE.items()})


def closing_brace(text: str, start: int) -> int | None:
    r"""Where the group opened at `text[start]` closes, or None if it never does. `\{` and `\}` are no braces.

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
    r"""Content of the last `\boxed{...}` (or `\fbox`), by balanced braces; None if there is none or it is cut off.

    >>> last_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}.")
    '\\frac{1}{2}'
    >>> last_boxed(r"so \boxed{\frac{1}{2")
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    bare = re.compile(r"\\(?:boxed|fbox)\s*(\{?)\s*([^\s$.,;]*)").match(text, start)
    if bare is None or not bare[1]:
        return bare[2] or None if bare else None
    end = closing_brace(text, bare.start(1))
    return None if end is None else text[bare.end(1) : end].strip()


def split_top(text: str, separator: str) -> list[str]:
    r"""Splits at a pattern where no bracket is open; `(0,1]` closes as an interval does.

    >>> split_top("(0,1],[2,3),4", ",")
    ['(0,1]', '[2,3)', '4']
    """
    pattern, parts, depth, start, i = re.compile(separator), [], 0, 0, 0
    while i < len(text):
        found = pattern.match(text, i) if depth == 0 else None
        if found and found.end() > i:
            parts.append(text[start:i])
            start = i = found.end()
            continue
        if text[i] == "\\" and text[i + 1 : i + 2] not in ("{", "}"):
            i += 1  # an escaped separator, or the letters of a command, are not looked at twice
        elif text[i] in _OPENING:
            depth += 1
        elif text[i] in _CLOSING:
            depth = max(0, depth - 1)
        i += 1
    return [*parts, text[start:]]


def normalize(text: str) -> str:
    r"""One spelling for the many of LaTeX: fonts, spaces, signs, fractions, roots, wrappers and trailing points.

    >>> normalize(r"$\displaystyle \dfrac12$.")
    '\\frac{1}{2}'
    >>> normalize("−3{,}000 √2")
    '-3000 \\sqrt{2}'
    """
    text = _unwrap(to_ascii(text).strip())
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _brace_arguments(_brace_arguments(text, r"\frac", 2), r"\sqrt", 1)
    text = re.sub(r"\s+", " ", text).strip().rstrip(".").strip()
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    return _unwrap(text)


def _unwrap(text: str) -> str:
    """Takes off `$...$`, `\\(...\\)`, `\\[...\\]`, a box and braces around the whole."""
    for _ in range(4):
        text = text.strip()
        match = re.fullmatch(r"(?s)\\?\$+(.*?)\\?\$+\.?|\\\((.*)\\\)\.?|\\\[(.*)\\\]\.?", text)
        if match and len(text) > 2 and "$" not in (match[1] or ""):
            text = match[1] or match[2] or match[3] or ""
        elif text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1]
        elif re.match(r"\\(?:boxed|fbox)\s*\{", text) and closing_brace(text, text.index("{")) == len(text) - 1:
            text = text[text.index("{") + 1 : -1]
        else:
            break
    return text


def _brace_arguments(text: str, command: str, count: int) -> str:
    r"""Puts braces around bare arguments: `\frac12` is `\frac{1}{2}`, `\sqrt3` is `\sqrt{3}`."""
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
