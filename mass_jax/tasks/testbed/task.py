"""The testbed as a `Task`: prompts, a parser and a verifier for operator problems."""

from collections.abc import Sequence

import re2

from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.patterns import encodable
from mass_jax.tasks.testbed import text as language
from mass_jax.tasks.testbed.domain import Domain

MAX_CHARS = 400  # longer texts are rejected without parsing
_EXAMPLE = re2.compile(r"(?:[a-z]+ ){3}; ([0-9] [a-z]+ [0-9]) = ([0-9] ?[0-9])")
_ANSWER = re2.compile(r"([0-9]) ?([0-9])")


class OperatorTask:
    """Prompts, parser and verifier of the testbed.

    Args:
        domain: The domain; used only by `useful`.

    Example:
        >>> task = OperatorTask(Domain.generate(seed=7))
        >>> task.parse_example("careful loda sum ; 2 zomu 8 = 1 0", "7 zomu 4")
        Example(problem='2 zomu 8', solution='1 0')
        >>> task.parse_example("careful loda sum ; 7 zomu 4 = 1 1", "7 zomu 4")
        Rejected(reason='copies the target problem')
    """

    def __init__(self, domain: Domain):
        self._domain = domain

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        """Returns the solver prompt, preceded by solved problems if there are shots."""
        solved = [f"{language.solver_prompt(shot.problem)} {shot.solution}" for shot in shots]
        return " ".join([*solved, language.solver_prompt(problem)])

    def generator_prompt(self, problem: str) -> str:
        """Returns the prompt for generating one synthetic example."""
        return language.generator_prompt(problem)

    def scorer_text(self, problem: str, example: Example) -> str:
        """Returns the target problem and the example as one line."""
        return f"{problem} : {example.problem} = {example.solution}"

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Parses an example and drops its plan; rejects copies of the target problem. Never raises."""
        text = text.strip()
        match = _EXAMPLE.fullmatch(encodable(text)) if len(text) <= MAX_CHARS else None
        if match is None:
            return Rejected("not of the form 'style class rule ; x operator y = d d'")
        if match[1] == problem:
            return Rejected("copies the target problem")
        return Example(match[1], match[2])

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Compares the digits of responses with the gold answers."""
        return [_verdict(p.answer, r) for p, r in zip(problems, responses, strict=True)]

    def final_answer(self, response: str) -> str | None:
        """Returns the two digits of a response, or None if it has another form."""
        return _digits(response)

    def useful(self, problem: Problem, example: Example) -> bool:
        """Returns whether an example is correct and has the target's operator."""
        x, operator, y = example.problem.split()
        if operator != problem.cluster or operator not in self._domain.operators:
            return False
        return example.solution.replace(" ", "") == f"{self._domain.value(operator, int(x), int(y)):02d}"


def _verdict(answer: str, response: str) -> Verdict:
    digits = _digits(response)
    if digits is None:
        return Verdict.UNPARSABLE
    return Verdict.RIGHT if digits == answer.replace(" ", "") else Verdict.WRONG


def _digits(response: str) -> str | None:
    """Returns the two digits of which a response consists, or None if it has another form."""
    text = response.strip()
    match = _ANSWER.fullmatch(encodable(text)) if len(text) <= MAX_CHARS else None
    return match[1] + match[2] if match else None
