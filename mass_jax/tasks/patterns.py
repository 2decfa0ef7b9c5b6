"""Helpers for matching text that a model wrote.

Such text only meets patterns of `re2`, whose running time is linear, or plain string methods, which
`tests/tasks/test_patterns.py` checks. `re2` matches UTF-8, so text goes through `encodable` first.
"""

_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def encodable(text: str) -> str:
    r"""Replaces surrogates that stand alone, which UTF-8 cannot encode, by U+FFFD.

    Args:
        text: any string.

    Returns:
        The text itself if it can be encoded, else a copy.

    >>> encodable("x"), encodable("\ud800").isprintable()
    ('x', True)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def ascii_lower(text: str) -> str:
    """Lowers the letters A to Z only, so that every character keeps its position.

    >>> ascii_lower("ABC İ")
    'abc İ'
    """
    return text.translate(_LOWER)
