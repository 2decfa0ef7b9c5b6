"""Helpers for matching model output.

Model output is only matched with `re2`, whose running time is linear, or with string methods;
`tests/tasks/test_patterns.py` checks this. `re2` matches UTF-8, so pass text through `encodable` first.
"""


def encodable(text: str) -> str:
    r"""Replaces lone surrogates, which UTF-8 cannot encode, with question marks.

    Args:
        text: Any string.

    Returns:
        The text itself if it can be encoded, otherwise a copy of the same length.

    Example:
        >>> encodable("x"), encodable("\ud800")
        ('x', '?')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def lower_in_place(text: str) -> str:
    """Converts a text to lower case without moving any character.

    Example:
        >>> lower_in_place("ABC İ")
        'abc i'
    """
    # The capital dotted I is the only character whose lower case has two characters.
    return text.replace("İ", "i").lower()
