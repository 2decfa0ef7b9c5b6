"""Finds answers announced in words: "the answer is 42", "Answer: 42", or a heading "Answer" above 42."""

from typing import NamedTuple

import re2

from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.patterns import lower_in_place

MAX_MENTIONS = 50
_BEFORE, _AFTER = 80, 1500  # characters inspected before and after a mention

_LINK = re2.compile(
    r"(?i)s?[ \t]*(?:\([^()\n]{0,40}\)[ \t]*)?"
    r"(?:to (?:the|this|your) (?:[a-z]+ )?(?:problem|question|exercise|puzzle)[ \t]*)?[*_\"'`]{0,3}[ \t]*"
    r"(?:(?:is|are|equals|would be|will be|must be|should be)\b|[:=：])[ \t]*[*_:：=]{0,4}"
)
_HEADING_BEFORE = re2.compile(r"[\s#*_>\-\d.()]*(?:(?:the|my|our) )?(?:(?:final|correct|numerical) )?")
_HEADING_AFTER = re2.compile(r"s?[ \t]*[*_:：#]{0,4}[ \t]*\n")

# Matched directly before "answer", in lower case.
_HYPOTHETICAL = re2.compile(
    r"(?:\b(?:if|suppose|supposing|assume|assuming|whether|unless|hope|hoping|imagine|pretend|doubt|"
    r"check|checking|verify|verifying|confirm|test|testing)(?: that)? "
    r"(?:[a-z]+ ){0,3}"
    r"|\b(?:wrong|incorrect|other|another|previous|earlier|intermediate|partial|initial|old|different|his|her|their|"
    r"student's) )$"
)
_DENIED_BEFORE = re2.compile(r"(?:n't|\bnot|\bnever|\bcannot) (?:[a-z]+ ){0,3}$")
# Matched at the start of the text after "answer is".
_DENIED = re2.compile(r"(?i)(?:not|never|no longer|wrong|incorrect|unlikely|too (?:big|large|small|high|low))\b")
_IDLE = re2.compile(
    r"(?i)(?:also |indeed |now )?(?:correct|right|clear|obvious|known|unique|reasonable|verified|confirmed|fine|found|"
    r"shown|given|written|boxed|expected|supposed|as follows|below|above|in|"
    r"the same|what we|an? (?:[a-z-]+ ){0,2}(?:integer|number|fraction|value|decimal|percentage|multiple|divisor))\b"
)
_FILLER = re2.compile(
    r"(?i)(?:(?:thus|therefore|hence|then|so|just|simply|exactly|precisely|indeed|clearly|equal to|given by|option|"
    r"choice),? )*"
)
_CLAUSE = re2.compile(
    r"(?i)\s*(?:(?:,|;|\()\s*(?:i\.e|that is|which|because|since|meaning|as (?:required|desired|expected|claimed))\b"
    r"|\s(?:i\.e\.|because|since)\s|[,\s]\s*(?:and |but )?not\s)"
)
_CLAUSE_DENIES = re2.compile(
    r"(?i)(?:\bwhich\b|\bsince\b|\bbecause\b).*(?:n't|\bnot|\bwrong|\bincorrect|\bimpossible)\b"
)
_SENTENCE_END = re2.compile(r"(?:(\.\$+)|[.。])(?:\s|$)|\?")
_WORD = re2.compile(r"([A-Za-z]{2,})(?:'[a-z]+)?(?:,?\s+[^\s=<>≤≥≠+*/^_(]|,)")
_MATH_WORDS = frozenset("sin cos tan cot sec csc log ln exp sqrt pi infinity mod max min lim abs gcd lcm".split())
_VALUE = re2.compile(r"[-+−]?\s*(?:[0-9$\\(\[{.√π£€|]|[A-Za-z](?:\([a-z]\))?\s*[=<>≤≥])")


class Announcement(NamedTuple):
    """An announced answer.

    Attributes:
        content: Text of the answer.
        end: Position in the response where the answer ends.
    """

    content: str
    end: int


def announced(text: str, word: str = "answer") -> Announcement | None:
    """Finds the last announced answer in a text.

    Questions, hypotheses and remarks such as "I hope the answer is correct" are ignored.

    Args:
        text: Prose.
        word: Word for the answer, in lower case.

    Returns:
        The announcement, or None if there is none.

    Raises:
        Unreadable: If the text finally calls the answer wrong, the announcement is cut off, or the text mentions
            answers too often.

    Example:
        >>> announced("The answer is 42. I hope the answer is correct.").content
        '42'
    """
    lowered, at = lower_in_place(text), len(text)
    for _ in range(MAX_MENTIONS):
        at = lowered.rfind(word, 0, at)
        if at < 0:
            return None
        found = _announcement_at(text, lowered, at, at + len(word))
        if found is not None:
            return found
    raise Unreadable("too many answers")


def is_value(text: str) -> bool:
    """Returns whether a text starts with a number, a formula or an assignment rather than prose.

    Example:
        >>> is_value("$42$"), is_value("x = 3"), is_value("an even number")
        (True, True, False)
    """
    return _VALUE.match(text) is not None


def is_sentence(text: str) -> bool:
    """Returns whether a text is prose that contains a number or formula, so that its value is unclear: "Let x = 5".

    Example:
        >>> is_sentence("Let x = 5"), is_sentence("Monday"), is_sentence("12 apples"), is_sentence("sin 30")
        (True, False, False, False)
    """
    word = _WORD.match(text)
    if word is None or lower_in_place(word[1]) in _MATH_WORDS:
        return False
    return "=" in text or "\\" in text or any(char.isdigit() for char in text)


def first_sentence(text: str) -> tuple[str, int]:
    """Extracts the first sentence of a line, up to an explanatory clause. A decimal point does not end a sentence.

    Args:
        text: A line.

    Returns:
        The sentence without emphasis, and the position where it ends.

    Raises:
        Unreadable: If the clause retracts the answer, or the sentence ends in dots.

    Example:
        >>> first_sentence("**3.5**, which is 7/2. Done.")
        ('3.5', 7)
    """
    sentence, clause = _SENTENCE_END.search(text), _CLAUSE.search(text)
    ends = [sentence.end(1) if sentence[1] else sentence.start()] if sentence else []
    end = min([*ends, *([clause.start()] if clause else [])], default=len(text))
    if _CLAUSE_DENIES.match(text[end : end + 200].lstrip(" ,;(")):
        raise Unreadable("answer taken back")
    if text[:end].endswith(".."):
        raise Unreadable("answer trails off")
    return _without_emphasis(text[:end]), end


def _without_emphasis(text: str) -> str:
    text = text.strip()
    if text.startswith("**"):
        close = text.find("**", 2)
        if close > 0 and not text[close + 2 : close + 3].isalnum():
            text = text[2:close] + text[close + 2 :]
    return text.strip(' *:_`"“”')


def _announcement_at(text: str, lowered: str, start: int, end: int) -> Announcement | None:
    """Parses the announcement at a mention of the word; returns None if there is none."""
    before = lowered[max(0, start - _BEFORE) : start].rsplit("\n", 1)[-1]
    if before[-1:].isalnum():
        return None
    after = text[end : end + _AFTER]
    heading = _HEADING_AFTER.match(after) if _HEADING_BEFORE.fullmatch(before) else None
    link = heading or _LINK.match(after)
    if link is None or _HYPOTHETICAL.search(before):
        return None
    if _DENIED_BEFORE.search(before):
        raise Unreadable("answer denied")
    rest = after[link.end() :]
    content = rest.lstrip()
    skipped = len(rest) - len(content)
    if not content:
        raise Unreadable("answer cut off")
    if _DENIED.match(content):
        raise Unreadable("answer denied")
    filler = _FILLER.match(content).end()
    content = content[filler:]
    if _IDLE.match(content):
        return None
    line = _first_line(content)
    sentence, length = first_sentence(line)
    if line[length : length + 1] == "?":
        return None
    return Announcement(sentence, end + link.end() + skipped + filler + length)


def _first_line(text: str) -> str:
    """Returns the first line, or a displayed formula with the rest of its last line."""
    for opening, closing in (("$$", "$$"), ("\\[", "\\]")):
        if text.startswith(opening):
            end = text.find(closing, 2)
            if end < 0:
                raise Unreadable("answer cut off")
            return text[:end].replace("\n", " ") + text[end:].split("\n", 1)[0]
    return text.split("\n", 1)[0]
