"""The families as a `Task`: short prompts, a parser, and comparison of integers.

The short form makes runs on a CPU feasible, since their cost is proportional to the number of tokens.
"""

import dataclasses
from collections.abc import Sequence

import re2

from mass_jax.tasks import chat, example_form
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.families.family import MAX_CHARS, find
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.response import final_answer
from mass_jax.tasks.patterns import encodable

SYSTEM = {"role": "system", "content": "Answer with a number."}
START = "Answer: "
ASK = "Problem: {}\nSimilar problem:"
INSTRUCT = "Write one new problem of the same kind with other numbers, then its answer, exactly in the form {}."
END = "\n"  # ends every completion, answers included, since the synthetic examples are trained with it
SOLVED = (Example("4 + 3", "7"), Example("6 * 2", "12"), Example("8 - 5", "3"))  # few-shot examples, in this order
GENERATOR_SHOTS = (("x + 3 = 8", Example("x + 2 = 9", "7")), ("6 * 4", Example("8 * 3", "24")))
# Colons and control tokens are excluded, so that a problem cannot contain another answer or further turns.
_EXAMPLE = re2.compile(r"(?P<problem>[0-9A-Za-z][0-9A-Za-z +*=,.?-]*) Answer: ?(?P<solution>[0-9]{1,6})")
_ANSWER_FIRST = re2.compile(r"Answer: ?(?P<solution>[0-9]{1,6}) Problem: ?(?P<problem>[0-9A-Za-z][0-9A-Za-z +*=,.?-]*)")
_WORKED = re2.compile(
    r"(?P<problem>[0-9A-Za-z][0-9A-Za-z +*=,.?-]*) Answer: ?"
    r"(?P<solution>[0-9]{1,6} [+*/-] [0-9]{1,6} = [0-9]{1,6})"
)
_EQUATION = re2.compile(r"(?:Answer: ?)?[0-9]{1,6} [+*/-] [0-9]{1,6} = ([0-9]{1,6})")
_READERS = {
    example_form.QUESTION_FIRST: (("problem Answer: integer", _EXAMPLE),),
    example_form.ANSWER_FIRST: (
        ("Answer: integer Problem: problem", _ANSWER_FIRST),
        ("problem Answer: integer", _EXAMPLE),
    ),
    example_form.WORKED: (("problem Answer: equation", _WORKED),),
}
_INTEGER = re2.compile(r"[0-9]{1,6}")


@dataclasses.dataclass(frozen=True)
class FamiliesTask:
    """Prompts, parser and verifier of one-step arithmetic.

    Attributes:
        num_shots: Number of solved problems in every solver prompt, at most `len(SOLVED)`. They show the answer format,
            which the model otherwise has to learn.
        render: Function from messages to prompt text, such as `chat.renderer(tokenizer, SYSTEM)`.
        form: Form of written examples. With "answer_first", the numbers come in the order that makes an example easy
            to write: the answer first where it is an operand, the question first where it is the result. With "worked",
            solutions are one equation.

    Raises:
        ValueError: If `num_shots` is out of range.

    Example:
        >>> task = FamiliesTask()
        >>> task.parse_example("9 * 4 Answer: 36", "6 * 7")
        Example(problem='9 * 4', solution='36')
        >>> task.parse_example("7 * 6 Answer: 42", "6 * 7")
        Rejected(reason='copies the target problem')
    """

    num_shots: int = 0
    render: chat.Render = chat.plain
    form: str = example_form.QUESTION_FIRST

    def __post_init__(self) -> None:
        if not 0 <= self.num_shots <= len(SOLVED):
            raise ValueError(f"--num_shots={self.num_shots} must be between 0 and {len(SOLVED)} for --task=families")

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """Returns the solved problems, further shots and the problem as a conversation, and the start of the answer."""
        shown = [self._in_form(example) for example in SOLVED[: self.num_shots]]
        solved = [(shot.problem, START + shot.solution) for shot in (*shown, *shots)]
        return self.render([SYSTEM, *chat.dialogue(solved, problem)]) + START

    def generator_prompt(self, problem: str) -> str:
        """Returns the problem, preceded by two other problems with a similar problem each."""
        pairs = ((target, self.write(self._in_form(example))) for target, example in GENERATOR_SHOTS)
        shown = "".join(f"{ASK.format(target)} {written}{END}" for target, written in pairs)
        return shown + ASK.format(problem)

    def instructed_prompt(self, problem: str) -> str:
        """Returns the instruction and the problem as a conversation, after the generator prompt's other problems."""
        forms = " or ".join(f"'{form}'" for form, _ in _READERS[self.form])
        turns = [(target, self.write(self._in_form(example))) for target, example in GENERATOR_SHOTS]
        instruction = {"role": "system", "content": INSTRUCT.format(forms)}
        return self.render([instruction, *chat.dialogue(turns, problem)])

    def scorer_text(self, problem: str, example: Example) -> str:
        """Returns the target problem and the example in the form of the generator prompt."""
        return f"{ASK.format(problem)} {self.write(example)}"

    def write(self, example: Example) -> str:
        """Formats an example as the generator writes it; `parse_example` reads it.

        Example:
            >>> FamiliesTask(form="answer_first").write(Example("4x = 28", "7"))
            'Answer: 7 Problem: 4x = 28'
        """
        found = find(example.problem)
        result_asked = found is not None and found[1].asked == "c"
        question_first = self.form == example_form.ANSWER_FIRST and result_asked
        return example_form.write(example, example_form.QUESTION_FIRST if question_first else self.form)

    def _in_form(self, example: Example) -> Example:
        """Returns an example with a worked solution, if the form has them."""
        found = find(example.problem) if self.form == example_form.WORKED else None
        return example if found is None else Example(example.problem, found[1].step(found[2]))

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Parses text of the form of `write`; rejects copies of the target problem. Never raises."""
        line = encodable(text.strip()) if len(text) <= MAX_CHARS else ""
        found = (match for _, reader in _READERS[self.form] if (match := reader.fullmatch(line)) is not None)
        match = next(found, None)
        if match is None:
            return Rejected(f"not of the form '{_READERS[self.form][0][0]}'")
        if _holds(match["problem"], problem) or _same_fact(match["problem"], problem):
            return Rejected("copies the target problem")
        return Example(match["problem"], match["solution"])

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Compares the final answers of responses with the gold answers."""
        return [_verdict(p.answer, self._result(r)) for p, r in zip(problems, responses, strict=True)]

    def final_answer(self, response: str) -> str | None:
        """Returns the final answer of a response if it is an integer, else None."""
        try:
            answer = final_answer(self._result(response))
        except Unreadable:
            return None
        return str(int(answer)) if _INTEGER.fullmatch(answer) else None

    def _result(self, response: str) -> str:
        """Returns the right side of a worked solution; other responses unchanged."""
        if self.form != example_form.WORKED or len(response) > MAX_CHARS:
            return response
        match = _EQUATION.fullmatch(encodable(response.strip()))
        return response if match is None else match[1]

    def recompute(self, problem: str) -> str | None:
        """Computes the answer to a problem of a known form, for the answer gate of the audit; None for other texts.

        Example:
            >>> FamiliesTask().recompute("x + 3 = 10")
            '7'
        """
        found = find(problem)
        return None if found is None else str(found[1].answer(found[2]))

    def useful(self, problem: Problem, example: Example) -> bool:
        """Returns whether an example is correct and belongs to the target's family."""
        found = find(example.problem)
        if found is None:
            return False
        family, form, fact = found
        if self.form == example_form.WORKED and example.solution != form.step(fact):
            return False
        return family == problem.subject and int(example.solution.rpartition(" ")[2]) == form.answer(fact)


def _holds(text: str, problem: str) -> bool:
    """Returns whether a text contains the problem, ignoring white space."""
    spaceless, sought = "".join(text.split()), "".join(problem.split())
    at = spaceless.find(sought)
    while at >= 0:
        around = spaceless[max(0, at - 1) : at] + spaceless[at + len(sought) : at + len(sought) + 1]
        if not any(char.isascii() and char.isalnum() for char in around):
            return True
        at = spaceless.find(sought, at + 1)
    return False


def _same_fact(one: str, other: str) -> bool:
    """Returns whether two problems ask the same question about the same operands, in either order."""
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
