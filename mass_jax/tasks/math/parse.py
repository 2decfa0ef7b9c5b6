r"""Parser for synthetic mathematics examples in generated text.

The parser tolerates numbering, Markdown, repetition and truncation after a complete example; otherwise it reports what
is missing. Patterns use `re2`, whose running time is linear.
"""

import re2

from mass_jax.tasks.base import Example, Rejected
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.boxes import find_boxes
from mass_jax.tasks.near_duplicates import similarity, tokens
from mass_jax.tasks.patterns import encodable

MAX_CHARS = 20_000
COPY_SIMILARITY = 0.9

_LEAD = r"(?im)^[ \t>*_#\-\d.)(]{0,12}(?:new |practice |similar )?"
_COLON = r"[ \t]*\d{0,3}[ \t]*[*_]{0,3}[ \t]*:[ \t*_]{0,4}"
_PROBLEM = re2.compile(_LEAD + r"(?:problem|question|exercise)" + _COLON)
_SOLUTION = re2.compile(_LEAD + r"(?:solution|answer|explanation)" + _COLON)
_RULE = re2.compile(r"\n[ \t]*(?:-{3,}|\*{3,}|={3,}|#{1,6})[ \t]*$")
_FINAL = re2.compile(r"(?im)\\boxed|\\fbox|####|\banswer\b")


def parse_example(text: str, target: str) -> Example | Rejected:
    r"""Parses the first example in a text. Never raises.

    Args:
        text: Generated text; only its first `MAX_CHARS` characters are parsed.
        target: Text of the target problem; a copy of it is rejected.

    Returns:
        The example, or the reason for rejection.

    Example:
        >>> parse_example("**Problem:** What is 2 + 3?\n**Solution:** It is \\boxed{5}.", "What is 1 + 1?")
        Example(problem='What is 2 + 3?', solution='It is \\boxed{5}.')
        >>> parse_example("I cannot do that.", "What is 1 + 1?")
        Rejected(reason='no problem found')
    """
    text = encodable(text[:MAX_CHARS]).replace("\r\n", "\n").replace("\x00", "")
    problem_mark = _PROBLEM.search(text)
    if problem_mark is None:
        return Rejected("no problem found")
    solution_mark = _SOLUTION.search(text, problem_mark.end())
    if solution_mark is None:
        return Rejected("no solution found")
    second = _PROBLEM.search(text, solution_mark.end())
    problem = _clean(text[problem_mark.end() : solution_mark.start()])
    solution = _clean(text[solution_mark.end() : second.start() if second else len(text)])
    return _check(problem, solution, target)


def _check(problem: str, solution: str, target: str) -> Example | Rejected:
    """Accepts or rejects a problem with its solution."""
    if not problem:
        return Rejected("empty problem")
    if not solution:
        return Rejected("empty solution")
    posed = tokens(problem)
    if len(posed) < 3:
        return Rejected("problem too short")
    if "..." in (problem, solution):
        return Rejected("form not filled in")
    if not _FINAL.search(solution):
        return Rejected("no final answer")
    try:
        find_boxes(solution)
    except Unreadable:
        return Rejected("cut off")
    if similarity(posed, tokens(target)) >= COPY_SIMILARITY:
        return Rejected("copies the target problem")
    return Example(problem, solution)


def _clean(text: str) -> str:
    """Strips Markdown rules and emphasis from the ends of a text."""
    return _RULE.sub("", text.strip()).strip(" \t\n*_")
