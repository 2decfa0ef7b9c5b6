"""Verification of responses: simple answers are decided immediately, the others by worker processes."""

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
        pool: Worker processes that decide symbolic answers.

    Example:
        >>> from mass_jax.tasks.grading.workers.pool import Pool
        >>> with Pool(workers=1) as pool:
        ...     Verifier(pool).verify(["72"], ["48 + 24 = 72 #### 72"])
        [<Verdict.RIGHT: 'right'>]
    """

    def __init__(self, pool: Pool):
        self._pool = pool

    def submit(self, gold: str, response: str) -> "Future[Verdict]":
        """Starts verifying one response.

        Args:
            gold: Gold answer.
            response: Model output; may be any text.

        Returns:
            A future of the verdict; it is already done if no worker is needed.
        """
        try:
            answer = final_answer(response)
            read(answer)
        except Unreadable:
            return _settled(Verdict.UNPARSABLE)
        verdict = grade_quickly(gold, answer)
        return self._pool.submit(gold, answer) if verdict is None else _settled(verdict)

    def verify(self, golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Verifies `responses[i]` against `golds[i]` and returns the verdicts in order."""
        futures = [self.submit(gold, response) for gold, response in zip(golds, responses, strict=True)]
        return [future.result() for future in futures]


def _settled(verdict: Verdict) -> "Future[Verdict]":
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future
