"""Mathematics as a `Task`: prompts, parser and verifier of problems with one final answer."""

from collections.abc import Sequence
from concurrent.futures import Future

from mass_jax.tasks import chat
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict
from mass_jax.tasks.grading.answer import Unreadable
from mass_jax.tasks.grading.response import final_answer
from mass_jax.tasks.grading.verifier import Verifier
from mass_jax.tasks.math import parse, prompts


class MathTask:
    """Prompts, parser and verifier of MATH, GSM8K and SVAMP.

    Args:
        verifier: checks responses; its pool is the caller's to close.
        shots: examples in the prompts; none is zero-shot.
        render: messages to text, such as `functools.partial(chat.render, tokenizer)`.
    """

    def __init__(
        self,
        verifier: Verifier,
        shots: prompts.Shots = prompts.ZERO_SHOT,
        render: chat.Render = chat.plain,
    ):
        self._verifier = verifier
        self._shots = shots
        self._render = render

    def solver_prompt(self, problem: str, shots: Sequence[Example] = ()) -> str:
        solved = (*self._shots.solved, *shots)
        return self._render(prompts.solver_messages(problem, prompts.Shots(solved=solved)))

    def generator_prompt(self, problem: str) -> str:
        return self._render(prompts.generator_messages(problem, self._shots))

    def scorer_text(self, problem: str, example: Example) -> str:
        return prompts.scorer_text(problem, example)

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        return parse.parse_example(text, problem)

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        return self._verifier.verify([problem.answer for problem in problems], responses)

    def submit(self, problem: Problem, response: str) -> "Future[Verdict]":
        """Like `verify`, for one response, without waiting: so that verifying overlaps sampling."""
        return self._verifier.submit(problem.answer, response)

    def final_answer(self, response: str) -> str | None:
        try:
            return "".join(final_answer(response).split()) or None
        except Unreadable:
            return None

    def useful(self, problem: Problem, example: Example) -> bool | None:
        """Not known: no rule tells which practice a problem of mathematics needs."""
        return None
