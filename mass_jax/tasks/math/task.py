"""Mathematics as a `Task`: prompts, a parser and a verifier for problems with one final answer."""

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
        verifier: Checks responses; the caller closes its pool.
        shots: Few-shot examples in the prompts.
        render: Function from messages to prompt text, such as `chat.renderer(tokenizer)`.
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
        """Returns the solver prompt; `shots` follow the task's own few-shot examples."""
        solved = (*self._shots.solved, *shots)
        return self._render(prompts.solver_messages(problem, prompts.Shots(solved=solved)))

    def generator_prompt(self, problem: str) -> str:
        """Returns the prompt for generating one synthetic example."""
        return self._render(prompts.generator_messages(problem, self._shots))

    def instructed_prompt(self, problem: str) -> str:
        """Returns the prompt that asks to keep the problem's structure and to solve step by step."""
        return self._render(prompts.generator_messages(problem, self._shots, prompts.INSTRUCT))

    def scorer_text(self, problem: str, example: Example) -> str:
        """Returns the target problem and the example as plain text."""
        return prompts.scorer_text(problem, example)

    def parse_example(self, text: str, problem: str) -> Example | Rejected:
        """Parses the first example in generated text. Never raises."""
        return parse.parse_example(text, problem)

    def verify(self, problems: Sequence[Problem], responses: Sequence[str]) -> list[Verdict]:
        """Compares the final answers of responses with the gold answers."""
        return self._verifier.verify([problem.answer for problem in problems], responses)

    def submit(self, problem: Problem, response: str) -> "Future[Verdict]":
        """Starts verifying one response and returns immediately."""
        return self._verifier.submit(problem.answer, response)

    def final_answer(self, response: str) -> str | None:
        """Returns the final answer of a response without white space, or None if there is none."""
        try:
            return "".join(final_answer(response).split()) or None
        except Unreadable:
            return None

    def useful(self, problem: Problem, example: Example) -> bool | None:
        """Returns None: usefulness is unknown for mathematics."""
        return None
