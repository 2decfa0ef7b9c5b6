"""From a response to a verdict: plain answers are settled at once, the others by worker processes."""

from collections.abc import Sequence
from concurrent.futures import Future

from mass_jax.tasks.base import Verdict
from mass_jax.tasks.grading.answer import Unreadable, read
from mass_jax.tasks.grading.grade import grade_quickly
from mass_jax.tasks.grading.response import final_answer
from mass_jax.tasks.grading.workers.pool import Pool


class Verifier:
    """Checks responses against gold answers.

    Args:
        pool: decides what is not plain.

    Example: `Verifier(pool).verify(["72"], ["48 + 24 = 72 #### 72"])` gives `[Verdict.RIGHT]`.
    """

    def __init__(self, pool: Pool):
        self._pool = pool

    def submit(self, gold: str, response: str) -> "Future[Verdict]":
        """Starts to verify one response.

        Args:
            gold: the right answer.
            response: what a model wrote, of any kind.

        Returns:
            A future of the verdict, done at once if the answer is plain.
        """
        try:
            answer = final_answer(response)
            read(answer)
        except Unreadable:
            return _settled(Verdict.UNPARSABLE)
        verdict = grade_quickly(gold, answer)
        return self._pool.submit(gold, answer) if verdict is None else _settled(verdict)

    def verify(self, golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Verdicts of responses, in order."""
        futures = [self.submit(gold, response) for gold, response in zip(golds, responses, strict=True)]
        return [future.result() for future in futures]


def _settled(verdict: Verdict) -> "Future[Verdict]":
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future
