"""Helpers for matching text that a model wrote.

Such text only meets patterns of `re2`, whose running time is linear, or plain string methods, which
`tests/tasks/test_patterns.py` checks. `re2` matches UTF-8, so text goes through `encodable` first.
"""


def encodable(text: str) -> str:
    r"""Replaces surrogates that stand alone, which UTF-8 cannot encode, by question marks.

    Args:
        text: any string.

    Returns:
        The text itself if it can be encoded, else a copy.

    >>> encodable("x"), encodable("\ud800")
    ('x', '?')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def lower_in_place(text: str) -> str:
    """Lowers a text so that every character keeps its position; only the capital dotted I would take two.

    >>> lower_in_place("ABC İ")
    'abc i'
    """
    return text.replace("İ", "i").lower()
