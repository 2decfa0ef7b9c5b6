"""Random texts for `experiments.stress.fuzz`: typical model output and adversarial input."""

import ast
import functools
import importlib.util
import pathlib
import random
from collections.abc import Callable, Mapping

MAX_CHARS = 100_000
LONG_SHARE = 0.15  # share of the texts that may be longer than SHORT_CHARS
SHORT_CHARS = 2000
# Modules and packages whose string constants are used as fragments of texts.
READERS = ("mass_jax.tasks", "mass_jax.serving.guards.gates", "mass_jax.method.text")

_WORDS = (
    "so then the last player takes every coin left on that long wooden table before noon and walks away with half of a "
    "square meter per hour which is not equal to the answer or result because 12 apples plus 3.5 pears cost $4 each I "
    "hope it is correct wait no therefore we get x = 5 and y = 7 if only one third million percent dollars left over"
).split()
_LATEX = (
    r"\frac \dfrac \sqrt \boxed \fbox \text \left \right \begin{pmatrix} \end{pmatrix} \cup \cap \infty \pi \cdot "
    r"\times \le \ge \ne \pm \circ \degree \in \{ \} \$ \% \, \! \; \\ $ $$ \( \) \[ \] & ^ _ ^{2} _{3} { } ( ) [ ] | "
    r", = < > + - * / ! ' . : ; ~ x y n 1 2 3 10 {,} {1}{2} {a} x^2 \mathbb{R} \overline \binom \angle"
).split()
_MARKUP = (
    "<think> </think> <answer> </answer> <|im_start|> <|im_end|> <|eot_id|> <s> </s> [INST] [/INST] Problem: Solution: "
    "Answer: ** **Final *** ### #### --- === 1. - > ``` ` user assistant system <thinking> </thinking> {{ }} {% %} \n"
).split(" ")
_UNICODE = (
    "é中文٣²½√π−–×÷≤≥≠∪∩∅∞°…“”’ \u00a0\u2003\u200b\u200d\u202e\u0301\u0323\u0345\ufdfa\ufb01\u017f\u212a\U0001d7d8"
    "\U0001f600\ud800\udfff\x00\x1b\x85\u2028\ufeffİıßǆ₂⁵①㎏"
)
_JSON = ("{", "[", "}", "]", '"', '"a":', ":", ",", "1", "1e999", "null", "NaN", "\\", "\\u", "\\ud800", " ", "\n")


def make_text(seed: int, number: int) -> tuple[str, str]:
    """Generates one text deterministically.

    Args:
        seed: Random seed of all texts.
        number: Number of the text; it selects the kind, in turn.

    Returns:
        The name of the kind, and the text of at most `MAX_CHARS` characters.

    Example:
        >>> make_text(0, 1) == make_text(0, 1)
        True
    """
    rng = random.Random(f"mass fuzz {seed} {number}")
    kind = list(KINDS)[number % len(KINDS)]
    limit = MAX_CHARS if rng.random() < LONG_SHARE else SHORT_CHARS
    length = int(limit ** rng.random())
    return kind, KINDS[kind](rng, length)[:MAX_CHARS]


def _join(rng: random.Random, pieces: list[str], length: int, separator: str = "") -> str:
    """Joins random pieces to about a given length."""
    mean = sum(map(len, pieces)) / len(pieces) + len(separator)
    return separator.join(rng.choices(pieces, k=max(1, int(length / mean))))[:length]


def _prose(rng: random.Random, length: int) -> str:
    text = _join(rng, _WORDS, length, " ")
    return text.replace(" wait ", ".\n") if rng.random() < 0.5 else text


def _boxed(rng: random.Random, length: int) -> str:
    inside = rng.choice((_prose, _latex, _digits))(rng, min(length, rng.choice((60, 900, MAX_CHARS))))
    box = f"\\boxed{{{inside}}}"
    return f"{_prose(rng, length // 3)} {box}" + rng.choice((".", f" and {box}", "", f" not {box}", "\n" + box))


def _announced(rng: random.Random, length: int) -> str:
    start = rng.choice(("The answer is ", "Answer: ", "#### ", "<answer>", "### Answer\n", "is the answer ", "A: "))
    inside = rng.choice((_prose, _latex, _digits, _unicode))(rng, min(length, 200))
    return f"{_prose(rng, length // 2)}\n{start}{inside}{rng.choice(('', '.', '</answer>', '?', '.' + start))}"


def _latex(rng: random.Random, length: int) -> str:
    return _join(rng, _LATEX, length, rng.choice(("", "", " ")))


def _brackets(rng: random.Random, length: int) -> str:
    few = rng.sample(["{", "}", "(", ")", "[", "]", "\\{", "\\boxed{", "\\text{", "\\frac{", "^{", "<", "|"], 3)
    return _join(rng, few, length) + rng.choice(("", "1", "}" * (length // 2)))


def _digits(rng: random.Random, length: int) -> str:
    few = rng.sample([*"0123456789", ",", ".", " ", "-", "/", "e", "%", "$", "1,000", "0.", "\\,"], 4)
    return _join(rng, few, length)


def _exponents(rng: random.Random, length: int) -> str:
    return _join(rng, ["9", "^", "**", "^{", "}", "e99", "E+9", "!", "10", "(", ")"], min(length, 3000))


def _unicode(rng: random.Random, length: int) -> str:
    few = rng.sample(_UNICODE, 3)
    if rng.random() < 0.3:
        few = [chr(rng.randrange(0x110000)) for _ in range(5)]
    return _join(rng, few, length)


def _repeated(rng: random.Random, length: int) -> str:
    """Repeats fragments of the readers' patterns and texts between two other fragments."""
    few = rng.sample(fragments(), rng.choice((1, 2, 2, 3, 5)))
    start, end = rng.choice(fragments()), rng.choice(fragments())
    times = max(1, length // max(1, len("".join(few))))
    body = "".join(few) * times if rng.random() < 0.6 else _join(rng, few, length, rng.choice(("", " ", "\n")))
    return start + body + end


def _json(rng: random.Random, length: int) -> str:
    if rng.random() < 0.3:
        return rng.choice(("[", '{"a":', '["')) * (length // 4 + 1)
    return '{"problem": "' + _join(rng, list(_JSON), length)


def _chat(rng: random.Random, length: int) -> str:
    return _join(rng, [*_MARKUP, *_WORDS[:12], "\n"], length, rng.choice(("", " ", "\n")))


def _token(rng: random.Random, length: int) -> str:
    return rng.choice("aA1é_'\\$ \t\n.-*#") * length


def _example(rng: random.Random, length: int) -> str:
    parts = [_WORDS, ["6 * 7", "x + 3 = 10", "4 zomu 3", " Answer: ", "42", "careful loda sum ; ", " = 1 0"]]
    problem = _join(rng, rng.choice(parts), length // 2, " ")
    return f"Problem: {problem}\nSolution: {_prose(rng, length // 2)} \\boxed{{{rng.randrange(100)}}}"


KINDS: Mapping[str, Callable[[random.Random, int], str]] = {
    "prose": _prose,
    "boxed": _boxed,
    "announced": _announced,
    "latex": _latex,
    "brackets": _brackets,
    "digits": _digits,
    "exponents": _exponents,
    "unicode": _unicode,
    "repeated": _repeated,
    "json": _json,
    "chat": _chat,
    "token": _token,
    "example": _example,
}


@functools.cache
def fragments() -> list[str]:
    """Returns short pieces of all string constants in the readers' sources, including patterns."""
    found = set()
    for name in READERS:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        path = pathlib.Path(spec.origin)
        for source in sorted(path.parent.rglob("*.py")) if spec.submodule_search_locations else [path]:
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found |= _pieces(node.value)
    return sorted(found)


def _pieces(constant: str) -> set[str]:
    """Splits a constant at the special characters of patterns."""
    if len(constant) > 400:
        return set()
    for sign in "()[]|?*+":
        constant = constant.replace(sign, "\x00")
    parts = {part for part in constant.split("\x00") if 0 < len(part) <= 20}
    return parts | {part.replace("\\", "") for part in parts} - {""}
