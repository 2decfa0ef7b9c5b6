r"""Units behind a number: `147\text{ cm}`, `25 feet`, `$3.25`, `20\%`, `60^\circ`.

A missing unit is forgiven, a different one is not, and nothing is converted.
"""

import re

_NAMES = {
    "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "in": "inch", "ft": "foot",
    "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram", "lb": "pound", "oz": "ounce",
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "l": "liter", "ml": "milliliter",
    "feet": "foot", "inches": "inch", "metre": "meter", "centimetre": "centimeter", "deg": "degree",
    "percentage": "percent", "pct": "percent", "buck": "dollar", "usd": "dollar", "mph": "mile/hour",
    "kph": "kilometer/hour", "people": "person", "men": "man", "women": "woman", "children": "child",
}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
# Plain words that mean a unit even right behind a digit ("147cm"); a single letter there would be a variable.
_PLAIN = {name for name in _NAMES if len(name) > 1} | set(_NAMES.values()) | {"degree", "percent", "dollar", "cent"}
_NOT_UNITS = {"and", "or", "is", "mod", "pi", "sqrt", "sin", "cos", "tan", "log", "ln", "inf", "infinity"}

# A degree sign behind one of these belongs to what it is taken of: sin 30° is no number of degrees.
TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}\s*(?:\^\s*\{?\s*([23])\s*\}?)?\s*$")
_WORDS = re.compile(r"(?<=[0-9}) ])((?:[A-Za-z]+\.? ?(?:/ ?)?)+)(?:\^\s*\{?\s*([23])\s*\}?)?\s*$")


def split_unit(text: str) -> tuple[str, str]:
    r"""A normalized answer as (what is measured, canonical unit); the unit is "" where there is none.

    >>> split_unit(r"440 \text{cm}^2")
    ('440', 'centimeter^2')
    >>> split_unit(r"\$3.25"), split_unit(r"60\degree"), split_unit(r"20\%")
    (('3.25', 'dollar'), ('60', 'degree'), ('20', 'percent'))
    >>> split_unit("2x")
    ('2x', '')
    """
    text = text.strip()
    if re.match(r"-?\s*\\\$", text):
        bare, unit = split_unit(text.replace(r"\$", "", 1))
        return bare, "dollar" if unit in ("", "dollar") else "dollar " + unit
    for mark, name in ((r"\%", "percent"), (r"\degree", "degree"), (r"\$", "dollar")):
        if text.endswith(mark) and len(text) > len(mark) and not (name == "degree" and TRIGONOMETRIC.search(text)):
            return text.removesuffix(mark).strip(), name
    written = _TEXT.search(text)
    if written and text[: written.start()].strip() and not text[: written.start()].rstrip().endswith("_"):
        return text[: written.start()].strip(), canonical_unit(written[1], written[2])
    plain = _WORDS.search(text)
    if plain and _is_unit(plain[1], spaced=text[plain.start() - 1] == " "):
        return text[: plain.start()].strip(), canonical_unit(plain[1], plain[2])
    return text, ""


def canonical_unit(words: str, power: str | None = None) -> str:
    """One name for a unit.

    >>> canonical_unit("sq cm"), canonical_unit("feet"), canonical_unit("miles per hour"), canonical_unit("units", "2")
    ('centimeter^2', 'foot', 'mile/hour', '')
    """
    words = re.sub(r"\\?[%]", " percent ", words.lower().replace(".", " "))
    words = re.sub(r"\\?\$", " dollar ", words)
    names: list[str] = []
    exponent = int(power or 1)
    for word in re.sub(r"(?<= )per(?= )|/", " / ", f" {words} ").split():
        if word in _POWERS:
            exponent = _POWERS[word]
        elif word == "/" or not names or names[-1] == "/":
            names.append(word if word == "/" else _singular(word))
        elif word not in ("of",):
            names[-1] += " " + _singular(word)
    name = "".join(names)
    if name in ("unit", ""):
        return ""
    return f"{name}^{exponent}" if exponent > 1 else name


def _singular(word: str) -> str:
    known = _NAMES.get(word) or (_NAMES.get(word[:-1]) if word.endswith("s") else None)
    if known:
        return known
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _is_unit(words: str, spaced: bool) -> bool:
    """Whether plain letters behind a number are a unit and no variables: a known name, or words behind a space."""
    parts = [part for part in re.split(r"[ ./]+", words.lower()) if part]
    if not parts or any(part in _NOT_UNITS for part in parts):
        return False
    if all(part in _PLAIN or _singular(part) in _PLAIN or part in _POWERS or part == "per" for part in parts):
        return True
    return spaced and all(len(part) > 2 or part in _NAMES or part in _POWERS for part in parts) and words.islower()
