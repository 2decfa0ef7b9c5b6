"""Strict JSON parser: optional exact numbers, no repeated keys, and one-line reasons for errors."""

import collections
import json
from decimal import Decimal, InvalidOperation
from typing import Any

MOST_DIGITS = 4300  # of an integer; Python's own limit, since the conversion takes quadratic time
BLANK = " \t\r\n\ufeff"  # JSON's whitespace, and byte order marks as concatenated files contain them


class BadJson(ValueError):
    """Raised for text that is not valid JSON; the message is a short reason without a position.

    Attributes:
        position: index in the text at which parsing stopped.
    """

    def __init__(self, reason: str, position: int = 0):
        super().__init__(reason)
        self.position = position


def loads(text: str | bytes, *, exact: bool = False) -> Any:
    """Parses one JSON value.

    Args:
        text: text of the value, or bytes in a Unicode encoding.
        exact: whether to keep every digit: numbers with a fraction or an exponent, and integers too long for `int`,
            become `decimal.Decimal`.

    Returns:
        The value. NaN and Infinity are accepted, as by `json.loads`.

    Raises:
        BadJson: If the text is not a single JSON value, repeats a key, or is nested too deeply.

    >>> loads('{"answer": 0.1000}', exact=True)
    {'answer': Decimal('0.1000')}
    """
    if isinstance(text, bytes):
        try:
            text = text.decode(json.detect_encoding(text))
        except UnicodeDecodeError as error:
            raise BadJson(f"not {error.encoding.upper()} ({error.reason})", error.start) from None
    value, end = parse_at(text, len(text) - len(text.lstrip(BLANK)), exact)
    if end < len(text.rstrip(BLANK)):
        raise BadJson(_reason(text, end, "more than one value"), end)
    return value


def parse_at(text: str, start: int, exact: bool = False) -> tuple[Any, int]:
    """Parses the JSON value that starts at a given index of a text.

    Returns:
        The value, and the index after its end.

    Raises:
        BadJson: If no valid value starts there.

    >>> parse_at('[1] [2]', 4)
    ([2], 7)
    """
    try:
        return _DECODERS[exact].raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BadJson(_reason(text, error.pos, error.msg), error.pos) from None
    except RecursionError:
        raise BadJson("nested too deeply", start) from None
    except BadJson as error:
        raise BadJson(str(error), start) from None


def _reason(text: str, position: int, message: str) -> str:
    """Describes the likely reason why parsing stopped at a position."""
    rest = text[position:].strip(BLANK)[:1]
    if rest == "\0":
        return "NUL bytes, as a crash leaves them"
    if not rest or message.startswith("Unterminated string"):
        return "not JSON (the text ends inside a value)" if text.strip(BLANK) else "not JSON (empty)"
    if rest == "'":
        return "not JSON (single quotes in place of double quotes)"
    # Python 3.13 places this error at the comma, earlier versions after it.
    if message.startswith("Illegal trailing comma") or (text[:position].rstrip(BLANK).endswith(",") and rest in "}]"):
        return "not JSON (a comma before the closing bracket)"
    return f"not JSON ({message.removesuffix(' at')})"


def kind(value: Any) -> str:
    """Returns the JSON type of a value, with an article, for error messages.

    >>> kind([1]), kind(None)
    ('an array', 'null')
    """
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise BadJson(f"key {key[:40]!r} occurs more than once")
    return found


def _integer(text: str) -> int:
    if (digits := len(text.removeprefix("-"))) > MOST_DIGITS:
        raise BadJson(f"an integer of {digits} digits; write it as a string")
    return int(text)


def _exact_integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= MOST_DIGITS else Decimal(text)


def _exact_float(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise BadJson("a number with too large an exponent; write it as a string") from None


_DECODERS = {
    False: json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer),
    True: json.JSONDecoder(object_pairs_hook=_unique, parse_int=_exact_integer, parse_float=_exact_float),
}
