r"""Parser for units after a number: `147\text{ cm}`, `25 feet`, `$3.25`, `20\%`, `60^\circ`.

A missing unit is accepted, a different one is not, and nothing is converted. Words that change the value are not units:
scale words such as `million` and fraction ordinals such as `tenths` are multiplied into the number, and any other word
that is not a plain noun (`squared`, `double`, `more`) must occur in both answers. Running time is linear.
"""

import re
from fractions import Fraction

from mass_jax.tasks.grading.judge import fraction_latex, rational

_NAMES = {
    "mm": "millimeter", "cm": "centimeter", "m": "meter", "km": "kilometer", "in": "inch", "ft": "foot",
    "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram", "mg": "milligram", "lb": "pound", "oz": "ounce",
    "s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "l": "liter", "ml": "milliliter",
    "feet": "foot", "inches": "inch", "metre": "meter", "centimetre": "centimeter", "deg": "degree",
    "percentage": "percent", "pct": "percent", "buck": "dollar", "usd": "dollar", "mph": "mile/hour",
    "kph": "kilometer/hour", "people": "person", "men": "man", "women": "woman", "children": "child",
}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
# Words that are a unit even directly after a digit ("147cm"); a single letter there is a variable.
_PLAIN = {name for name in _NAMES if len(name) > 1} | set(_NAMES.values()) | {"degree", "percent", "dollar", "cent"}
_SINGLE = {name for name in _NAMES if len(name) == 1}

_ORDINALS = {
    "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "eleventh": 11, "twelfth": 12, "fifteenth": 15, "sixteenth": 16, "twentieth": 20, "hundredth": 100,
    "thousandth": 1000, "millionth": 10**6, "billionth": 10**9,
}  # fmt: skip
_LARGE = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {
    **{name: Fraction(n) for name, n in _LARGE.items()},
    **{name: Fraction(1, n) for name, n in _ORDINALS.items()},
    "half": Fraction(1, 2),
    "halves": Fraction(1, 2),
}
_MULTIPLIERS = frozenset("squared cubed factorial plus minus k mn bn lakh crore gross".split())

# Words that do not name counted objects. A unit that contains one must occur in both answers.
_NOT_NOUNS = frozenset(
    "a about above add added after ago all almost also am an and another any approximately are around as at base "
    "basis be before below between bn bp bps but by choose circa conjugate cos couple crore cross cubed debt decrease "
    "decreased difference divide divided divides double doubled each either error every exactly exceeds exponent "
    "extra factorial false few fewer fifths fold for fraction from gcd giga googol grand greater gross half halved "
    "halves has have high higher hundredths if improper in increase increased inf infinite infinity inverse is it its "
    "kilo lakh lcm least left less ln log lots low lower many max maximum mean mega mil mill millard mille milliard "
    "milliarden millones min minimum minus mn mod modulo more most multiplied multiply myriad nd nearly negation "
    "negative neither nil no none nope nor not nth of off on ones only opposite or other out over owed owing pair "
    "pairs per permille pi plus positive power powers ppb ppm product quadruple quarter quarters quotient rd "
    "reciprocal recurring reduced remainder repeated repeating rooted roughly same score scores several short shy sin "
    "so some sqrt squared st still sub subtract subtracted such sum tan tens tera tenths th than that the their them "
    "then there therefore they this those thou thousandths threefold thrice through till time times to together too "
    "top total treble triple twice twofold undefined under unknown until up upto use versus very via vs was were when "
    "where which while whole will with without would wrong you zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty "
    "seventy eighty ninety k".split()
) | frozenset(_SCALES) | frozenset(f"{name}s" for name in _SCALES)  # fmt: skip
_OPERATORS = {"and", "or", "is", "mod", "pi", "sqrt", "sin", "cos", "tan", "cot", "log", "ln", "inf", "infinity"}
_NOUNS_IN_TH = {"month", "path", "length", "width", "depth", "tooth", "booth", "cloth", "moth", "mouth", "bath", "inch"}
_MAX_WORDS = 4

# A degree sign after one of these belongs to its argument: sin 30° is not an angle in degrees.
TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])")

_POWER_AT_END = re.compile(r" ?\^ ?\{? ?([23]) ?\}?$")
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKS = ((r"\%", "percent"), (r"\degree", "degree"), (r"\$", "dollar"))


def split_unit(text: str) -> tuple[str, str]:
    r"""Splits a normalized answer into its value and its unit.

    Args:
        text: Answer from `latex.normalize`.

    Returns:
        The value in LaTeX, with scale words multiplied in, and the canonical unit, or "" if there is none.

    Example:
        >>> split_unit(r"440 \text{cm}^2")
        ('440', 'centimeter^2')
        >>> split_unit(r"\$3.25"), split_unit(r"60\degree"), split_unit(r"20\%")
        (('3.25', 'dollar'), ('60', 'degree'), ('20', 'percent'))
        >>> split_unit("2x"), split_unit("2.5 million people"), split_unit("5 squared")
        (('2x', ''), ('2500000', 'person'), ('5', 'power squared'))
    """
    text = text.strip()
    if _is_money(text):
        rest = text.replace(r"\$", "", 1)
        if _is_money(rest):
            return text, ""
        bare, unit = split_unit(rest)
        return bare, "dollar" if unit in ("", "dollar") else "dollar " + unit
    for mark, name in _MARKS:
        if text.endswith(mark) and len(text) > len(mark) and not (name == "degree" and TRIGONOMETRIC.search(text)):
            return text.removesuffix(mark).strip(), name
    bare, words, power = _split_words(text)
    if not words:
        return bare, ""
    bare, words = _multiply_scales(bare, words)
    if bare.endswith(r"\degree") and words.lower() in ("c", "f", "celsius", "fahrenheit"):
        bare, words = bare.removesuffix(r"\degree").strip(), "degree " + words
    unit = canonical_unit(words, power)
    if unit == "degree" and TRIGONOMETRIC.search(bare):
        return rf"{bare}\degree", ""
    return bare, unit


def may_be_left_out(unit: str) -> bool:
    """Returns whether a unit only names the counted objects, so that the number alone is the same answer.

    Example:
        >>> may_be_left_out("centimeter^2"), may_be_left_out("red marble"), may_be_left_out("power squared")
        (True, True, False)
    """
    words = unit.replace("/", " ").split("^")[0].split()
    if len(words) > _MAX_WORDS or unit.startswith("/"):
        return False
    if words and len(words[-1]) > 5 and words[-1].endswith("ed"):  # tripled, negated
        return False
    return all(word in _PLAIN or word in ("celsius", "fahrenheit", "c", "f") or _is_noun(word) for word in words)


def is_multiplier(word: str) -> bool:
    """Returns whether a word after a number changes its value: a scale word, several parts, or an operation.

    >>> [is_multiplier(word) for word in ("million", "tenths", "squared", "fifth", "apples")]
    [True, True, True, False, False]
    """
    scale = _scale(word)
    return word.lower() in _MULTIPLIERS or (scale is not None and (scale > 1 or word.lower().endswith("s")))


def with_unit_of(latex: str, unit: str) -> str | None:
    """Splits off letters that spell a given unit, as in `5 m` if the other answer is in meters.

    Args:
        latex: Expression that may end in letters.
        unit: Canonical unit of the other answer.

    Returns:
        The expression before the unit, or None if it does not end in the unit.

    Example:
        >>> with_unit_of("5m", "meter"), with_unit_of("5m", "second"), with_unit_of("5", "meter")
        ('5', None, None)
    """
    power = _POWER_AT_END.search(latex)
    text = latex[: power.start()] if power else latex
    bare = text.rstrip(_LETTERS + " /.").strip()
    words = text[len(bare) :].strip()
    if not bare or not words or bare[-1] not in "0123456789})":
        return None
    return bare if canonical_unit(words, power[1] if power else None) == unit else None


def canonical_unit(words: str, power: str | None = None) -> str:
    """Returns the canonical name of a unit.

    Args:
        words: The unit in words or abbreviations.
        power: Exponent after the unit, if any.

    Example:
        >>> canonical_unit("sq cm"), canonical_unit("feet"), canonical_unit("miles per hour")
        ('centimeter^2', 'foot', 'mile/hour')
        >>> canonical_unit("units", "2")
        'unit^2'
    """
    words = words.lower().replace(r"\%", " percent ").replace("%", " percent ").replace(".", " ")
    words = words.replace(r"\$", " dollar ").replace("$", " dollar ").replace("/", " / ")
    names: list[str] = []
    exponent = int(power or 1)
    for word in words.split():
        if word in ("per", "/"):
            names.append("/")
        elif word in _POWERS:
            exponent = _POWERS[word]
        elif not names or names[-1] == "/":
            names.append(f"power {word}" if word in ("root", "cube") else _singular(word))
        elif word != "of":
            names[-1] += " " + _singular(word)
    if not names:  # "squared" alone is an operation
        return f"power {' '.join(words.split())}" if words.strip() else ""
    return "".join(names) + (f"^{exponent}" if exponent > 1 else "")


def _is_money(text: str) -> bool:
    return text.removeprefix("-").lstrip().startswith(r"\$")


def _singular(word: str) -> str:
    known = _NAMES.get(word) or (_NAMES.get(word[:-1]) if word.endswith("s") else None)
    if known:
        return known
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _split_words(text: str) -> tuple[str, str, str | None]:
    r"""Splits off words at the end, in `\text` or plain; returns (rest, words, power)."""
    power = _POWER_AT_END.search(text)
    body = (text[: power.start()] if power else text).rstrip()
    exponent = power[1] if power else None
    if body.endswith("}"):
        start = body.rfind("{")
        head = body[:start].rstrip()
        written = body[start + 1 : -1].strip()
        if start < 0 or not head.endswith(r"\text") or "\\" in written.replace(r"\%", "").replace(r"\$", ""):
            return text, "", None
        bare = head.removesuffix(r"\text").rstrip()
        if bare.endswith("/") and bare[:-1].rstrip().endswith("}"):  # \text{km}/\text{h}
            bare, before, _ = _split_words(bare[:-1].rstrip())
            return (bare, f"{before}/{written}", exponent) if before else (text, "", None)
        usable = bare and bare[-1] not in "_^/" and (written or not exponent)
        return (bare, written, exponent) if usable else (text, "", None)
    bare, words = _split_plain(body)
    return (bare, words, exponent) if words else (text, "", None)


def _split_plain(text: str) -> tuple[str, str]:
    """Splits off plain letters at the end if they are a unit rather than variables or prose."""
    start = len(text.rstrip(_LETTERS + " ./"))
    letters = text[start:].lstrip(" ./")
    start = len(text) - len(letters)
    before = text[:start].rstrip()
    if before.endswith(("\\", "_", "^", "'")):  # the letters continue a command or an index
        first, _, letters = letters.partition(" ")
        start += len(first) + 1
    words = letters.strip().rstrip(".")
    spaced = text[start - 1 : start] == " "
    while words and text[:start].strip():
        if _is_unit(words, spaced):
            return text[:start].strip(), words
        first, _, words = words.partition(" ")
        if len(first) > 1 or not words or not all(_is_known(word) for word in words.split()):
            break  # only a single variable may precede the unit
        start, spaced = start + 2, True
    return text, ""


def _is_known(word: str) -> bool:
    word = word.lower()
    return word in _PLAIN or _singular(word) in _PLAIN - _SINGLE or word in _POWERS or word in ("per", "/", "of")


def _is_unit(words: str, spaced: bool) -> bool:
    """Returns whether plain letters after a number are words rather than variables."""
    parts = words.lower().replace("/", " ").replace(".", " ").split()
    known = [part for part in parts if (len(part) > 1 and _is_known(part)) or part in _SCALES]
    if not parts or not (known or spaced):
        return False
    if any(part in _OPERATORS for part in parts):
        return False
    if len(known) == len(parts):
        return True
    if (known or spaced) and "/" in words:
        return all(part in known or part in _SINGLE for part in parts)  # km/h
    return spaced and all(len(part) > 2 or part in known for part in parts) and (words.islower() or bool(known))


def _is_noun(word: str) -> bool:
    """Returns whether a word may name the counted objects and does not change the value."""
    if not word.isalpha() or len(word) < 3 or word in _NOT_NOUNS or word + "s" in _NOT_NOUNS:
        return word in _NAMES
    if word.endswith("th") and word not in _NOUNS_IN_TH:
        return False
    return not word.endswith(("illion", "illionth", "fold", "teen", "ly"))


def _multiply_scales(bare: str, words: str) -> tuple[str, str]:
    """Multiplies leading scale words into the number: 5 and `million cells` give 5000000 and `cells`."""
    factor = Fraction(1)
    rest = words.replace(".", " ").split()
    while rest and (scale := _scale(rest[0])):
        if scale < 1 and len(rest) > 1 and rest[1] != "of" and not rest[0].endswith("s"):
            break  # 7 fifth graders are not 7/5 graders
        factor *= scale
        rest.pop(0)
    if factor == 1:
        return bare, words
    if rest and rest[0].lower() == "of":
        rest.pop(0)
    number = rational(bare)
    if number is None:
        return rf"({bare}) \cdot \frac{{{factor.numerator}}}{{{factor.denominator}}}", " ".join(rest)
    return fraction_latex(number * factor), " ".join(rest)


def _scale(word: str) -> Fraction | None:
    word = word.lower()
    return _SCALES.get(word) or _SCALES.get(word.removesuffix("s"))
