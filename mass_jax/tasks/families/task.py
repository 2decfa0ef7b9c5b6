"""The families as a `Task`: short prompts, parser, and plain comparison of integers.

The short form is what makes a run on a CPU possible: its cost is its tokens.
"""

import dataclasses
from collections.abc import Sequence

import re2

from mass_jax.tasks import chat
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.families.family import MAX_CHARS, find
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.response import final_answer
from mass_jax.tasks.patterns import encodable

SYSTEM = {"role": "system", "content": "Answer with a number."}
START = "Answer: "
ASK = "Problem: {}\nSimilar problem:"
END = "\n"  # ends every completion, answers too, though they are turns: what is learned as the form has it in it
SOLVED = (Example("4 + 3", "7"), Example("6 * 2", "12"), Example("8 - 5", "3"))  # shown as shots, in this order
PRACTICE = (("x + 3 = 8", Example("x + 2 = 9", "7")), ("6 * 4", Example("8 * 3", "24")))
# No colon and no control token in a problem: a model cannot put another answer, or turns of its own, into it.
_EXAMPLE = re2.compile(r"([0-9A-Za-z][0-9A-Za-z +*=,.?-]*) Answer: ?([0-9]{1,6})")
_INTEGER = re2.compile(r"[0-9]{1,6}")


@dataclasses.dataclass(frozen=True)
class FamiliesTask:
    """Prompts, parser and verifier of one-step arithmetic.

    Args:
        num_shots: solved problems before the one to solve, at most `len(SOLVED)`. They show the form of an answer;
            without them it is left to be learned.
        render: messages to text, such as `functools.partial(chat.render, tokenizer)`.

    Raises:
        ValueError: for another number of shots.

    >>> task = FamiliesTask()
    >>> task.parse_example("9 * 4 Answer: 36", "6 * 7")
    Example(problem='9 * 4', solution='36')
    >>> task.parse_example("7 * 6 Answer: 42", "6 * 7")
    Rejected(reason='copies the target problem')
    """

    num_shots: int = 0
    render: chat.Render = chat.plain

    def __post_init__(self) -> None:
        if not 0 <= self.num_shots <= len(SOLVED):
            raise ValueError(f"--num_shots={self.num_shots}: these prompts show 0 to {len(SOLVED)} solved problems")

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """The problem behind the solved ones (and further shots, if there are any), and the first word of an answer."""
        solved = [(shot.problem, START + shot.solution) for shot in (*SOLVED[: self.num_shots], *shots)]
        return self.render([SYSTEM, *chat.dialogue(solved, problem)]) + START

    def generator_prompt(self, problem: str) -> str:
        """The problem behind two others, each with an example of practice for it."""
        shown = "".join(f"{ASK.format(target)} {_written(example)}{END}" for target, example in PRACTICE)
        return shown + ASK.format(problem)

    def scorer_text(self, problem: str, example: Example) -> str:
        return f"{ASK.format(problem)} {_written(example)}"

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        match = _EXAMPLE.fullmatch(encodable(text.strip())) if len(text) <= MAX_CHARS else None
        if match is None:
            return Rejected("not of the form 'problem Answer: integer'")
        if _holds(match[1], problem) or _same_fact(match[1], problem):
            return Rejected("copies the target problem")
        return Example(match[1], match[2])

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return [_verdict(p.answer, r) for p, r in zip(problems, responses, strict=True)]

    def final_answer(self, response: str) -> str | None:
        """The integer that a response ends in, None where it has none."""
        try:
            answer = final_answer(response)
        except Unreadable:
            return None
        return str(int(answer)) if _INTEGER.fullmatch(answer) else None

    def recompute(self, problem: str) -> str | None:
        """The answer to a problem of a known form, as the audit's answer gate computes it; None for any other.

        >>> FamiliesTask().recompute("x + 3 = 10")
        '7'
        """
        found = find(problem)
        return None if found is None else str(found[1].answer(found[2]))

    def useful(self, problem: Problem, example: Example) -> bool:
        """Right, and of the target's own family in one of its known forms."""
        found = find(example.problem)
        if found is None:
            return False
        family, form, fact = found
        return family == problem.subject and int(example.solution) == form.answer(fact)


def _written(example: Example) -> str:
    return f"{example.problem} {START}{example.solution}"


def _holds(text: str, problem: str) -> bool:
    """Whether a text has the problem in it, however it is spaced."""
    spaceless, sought = "".join(text.split()), "".join(problem.split())
    at = spaceless.find(sought)
    while at >= 0:
        around = spaceless[max(0, at - 1) : at] + spaceless[at + len(sought) : at + len(sought) + 1]
        if not any(char.isascii() and char.isalnum() for char in around):
            return True
        at = spaceless.find(sought, at + 1)
    return False


def _same_fact(one: str, other: str) -> bool:
    """Whether two problems ask the same of the same operands, in either order."""
    a, b = find(one), find(other)
    if a is None or b is None or a[1].text != b[1].text:
        return False
    return a[2] == b[2] or (a[1].asked == "c" and a[2].operands == b[2].operands)


def _verdict(answer: str, response: str) -> Verdict:
    try:
        found = final_answer(response)
    except Unreadable:
        return Verdict.UNPARSABLE
    return grade_quickly(answer, found) or Verdict.WRONG
