r"""Extracts the final answer from a response.

Thinking sections are removed first. Then the first applicable rule decides:

| | form | answer |
|---|---|---|
| 1 | `<answer>...</answer>` | the answer by rules 2 to 5 inside the last pair |
| 2 | `\boxed{...}`, `\fbox{...}` | the last box; boxes joined by a comma, "and" or "or" are a list |
| 3 | `#### ...` | the rest of the last such line, if it is a value |
| 4 | "answer is ...", "Answer: ...", a heading "Answer"; then "result is ..." | the sentence, or the line below |
| 5 | a response of one line | the line |

A response that is truncated, retracts its answer or gives two different answers has no final answer. See
`docs/reference/answers.md` for examples.
"""

import re2

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.announced import announced, first_sentence, is_sentence, is_value
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.boxes import Box, find_boxes, has_box
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.joined import join_boxes
from mass_jax.tasks.patterns import encodable, lower_in_place

MAX_RESPONSE_CHARS = 100_000
_THINKING = ("think", "thinking", "thought", "reasoning")
_OPEN, _CLOSE = "<answer>", "</answer>"
_MAX_EMPTY_PAIRS = 20
_PLACEHOLDERS = frozenset(
    ("", r"\ldots", r"\dots", r"\cdots", "answer", "youranswer", "finalanswer", "theanswer", "yourfinalanswer", "ans")
)
_TAKEN_BACK = re2.compile(
    r"(?i)(?:^|[.!?,;:\n)$}*\]>—-])\s*(?:but |oh,? |no,? |hmm+[,.]* )?"
    r"(?:wait\b|hold on\b|scratch that\b|actually\b|correction\b|no[,.:] |oops\b|sorry\b"
    r"|or (?:rather|maybe|perhaps)\b|i mean\b|on second thoughts?\b"
    r"|(?:this|that|it)(?:'s| is| was|) (?:wrong|incorrect|not (?:right|correct|the (?:right |correct |final )?answer)"
    r"|a mistake|an error)"
    r"|i (?:was|am) wrong|i made an? |let me (?:re|try again))"
)
_NUMBERED = re2.compile(r"[0-9]{1,2}[.)]\s+[A-Za-z]")


def final_answer(response: str) -> str:
    r"""Extracts the final answer by the rules in the module's docstring.

    Args:
        response: Model output; may be any text.

    Returns:
        The text of the answer; `answer.read` parses it.

    Raises:
        Unreadable: If the response has no answer or an ambiguous one, or ends inside a box.

    Example:
        >>> final_answer(r"Adding, $x = 2$. So the answer is $\boxed{2}$.")
        '2'
        >>> final_answer("48 + 24 = 72\n#### 72")
        '72'
        >>> final_answer("The answer is 5.")
        '5'
        >>> final_answer("<think>Is it 7? No.</think> So x = \\boxed{2} or x = \\boxed{3}.")
        '2, 3'
    """
    if len(response) > MAX_RESPONSE_CHARS:
        raise Unreadable("response too long")
    text = without_thinking(encodable(response))
    region, rest = _tagged(text)
    answer, after = _untagged(region)
    for later in (after, rest):
        _check_rest(answer, later)
    return answer


def without_thinking(text: str) -> str:
    """Removes thinking sections; a closing tag without an opening one ends a section that began in the prompt.

    Raises:
        Unreadable: If a section never ends.

    Example:
        >>> without_thinking("<think>5?</think>The answer is 6.")
        'The answer is 6.'
        >>> without_thinking("Is it 5? No.</think>The answer is 6.")
        'The answer is 6.'
    """
    lowered = lower_in_place(text)
    for name in _THINKING:
        if f"<{name}>" in lowered or f"</{name}>" in lowered:
            text = _without_sections(text, lowered, f"<{name}>", f"</{name}>")
            lowered = lower_in_place(text)
    return text


def _without_sections(text: str, lowered: str, opening: str, closing: str) -> str:
    kept: list[str] = []
    depth = start = at = 0
    opened, closed = lowered.find(opening), lowered.find(closing)
    while opened >= 0 or closed >= 0:
        if opened >= 0 and (closed < 0 or opened < closed):
            if depth == 0:
                kept.append(text[start:opened])
            depth, at = depth + 1, opened + len(opening)
            opened = lowered.find(opening, at)
        else:
            start = at = closed + len(closing)
            if depth == 0:
                kept.clear()
            depth = max(0, depth - 1)
            closed = lowered.find(closing, at)
    if depth:
        raise Unreadable("thinking cut off")
    return "".join([*kept, text[start:]])


def _tagged(text: str) -> tuple[str, str]:
    """Returns the content of the last nonempty pair of answer tags, or the whole text, and the text after it.

    Raises:
        Unreadable: If the last tag never closes.
    """
    lowered = lower_in_place(text)
    if _OPEN not in lowered:
        return text, ""
    end = len(text)
    for _ in range(_MAX_EMPTY_PAIRS):
        start = lowered.rfind(_OPEN, 0, end)
        if start < 0:
            return text, ""
        close = lowered.find(_CLOSE, start, end)
        if close < 0:
            if end == len(text):
                raise Unreadable("answer cut off")
            end = start  # an opening tag that encloses another pair
            continue
        content = text[start + len(_OPEN) : close]
        if not _is_placeholder(content):
            return content, text[close + len(_CLOSE) :].replace(_CLOSE, " ")
        end = start
    raise Unreadable("too many answers")


def _untagged(text: str) -> tuple[str, str]:
    """Returns the answer by rules 2 to 5, and the text after it."""
    if has_box(text):
        boxes = [box for box in find_boxes(text) if not _is_placeholder(box.content)]
        if boxes:
            return join_boxes(text, boxes)[0], text[boxes[-1].end :]
    marked = _hashed(text)
    if marked is not None and is_value(marked[0]):
        return marked
    for word in ("answer", "result"):
        found = announced(text, word)
        if found is not None and (word == "answer" or is_value(found.content)):
            if is_sentence(found.content):
                raise Unreadable("answer in a sentence")
            return found.content, text[found.end :]
    if marked is not None and not is_sentence(marked[0]):
        return marked
    return _only_line(text)


def _hashed(text: str) -> tuple[str, str] | None:
    """Returns the rest of the last line marked by `####`, and the text after it."""
    _, mark, tail = text.rpartition("####")
    if not mark:
        return None
    line, _, rest = tail.strip().partition("\n")
    sentence, end = first_sentence(line)
    return (sentence, f"{line[end:]}\n{rest}") if sentence else None


def _only_line(text: str) -> tuple[str, str]:
    text = text.strip()
    if "\n" in text:
        raise Unreadable("no final answer")
    sentence, end = first_sentence(text)
    if text[end : end + 1] == "?" or is_sentence(sentence) or _NUMBERED.match(text):
        raise Unreadable("answer in a sentence")
    return sentence, text[end:]


def _check_rest(answer: str, rest: str) -> None:
    """Rejects an answer that the text after it retracts or contradicts."""
    if not rest or rest.isspace():
        return
    if _TAKEN_BACK.search(rest):
        raise Unreadable("answer taken back")
    later: list[str] = []
    if has_box(rest):
        boxes: list[Box] = [box for box in find_boxes(rest) if not _is_placeholder(box.content)]
        later += [join_boxes(rest, boxes)[0]] if boxes else []
    found = announced(rest)
    if found is not None and is_value(found.content):
        later.append(found.content)
    if any(grade_quickly(answer, other) is Verdict.WRONG for other in later):
        raise Unreadable("two different answers")


def _is_placeholder(content: str) -> bool:
    """Returns whether the content of a box or tag is a placeholder, as in a quoted instruction."""
    if len(content) > 60:
        return False
    bare = lower_in_place("".join(content.split())).removeprefix(r"\text{").strip("{}.$*_")
    return bare in _PLACEHOLDERS
