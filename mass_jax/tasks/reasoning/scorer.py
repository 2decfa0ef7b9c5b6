"""Scores answers with reasoning-gym in worker processes with hard limits."""

import json
from collections.abc import Mapping
from concurrent.futures import Future

from mass_jax.tasks.base import Problem, Verdict
from mass_jax.tasks.grading.workers.limits import Limits
from mass_jax.tasks.grading.workers.pool import Processes
from mass_jax.tasks.reasoning.bank import Scored

PROGRAM = "mass_jax.tasks.reasoning.program"
MAX_ANSWER_CHARS = 1000


class Scorer:
    """Checks answers; processes start when the first answer needs them. Call `close` when done.

    Args:
        level: Level of the problems, "easy" or "default".
        scored: Data of the problems by id, as `Bank.scored`.
        workers: Number of worker processes.
        limits: Limits on the check of one answer.
    """

    def __init__(self, level: str, scored: Mapping[str, Scored], workers: int = 2, limits: Limits | None = None):
        self._level = level
        self._scored = scored
        self._workers, self._limits = workers, limits
        self._processes: Processes | None = None
        self._closed = False

    def submit(self, problem: Problem, answer: str) -> "Future[Verdict]":
        """Starts checking an answer and returns immediately.

        The gold answer is correct; the package scored it when the problem was drawn. Other answers are incorrect where
        the family accepts one text only or the problem is not of the bank, and are scored by a worker otherwise.

        Args:
            problem: Problem of the bank.
            answer: Answer without the rest of the response; any text.

        Raises:
            RuntimeError: If the scorer is closed.
        """
        if self._closed:
            raise RuntimeError("the scorer is closed; create a new one")
        scored = self._scored.get(problem.id)
        if not answer or len(answer) > MAX_ANSWER_CHARS:
            return _settled(Verdict.UNPARSABLE)
        if answer == problem.answer:
            return _settled(Verdict.RIGHT)
        if scored is None or scored.exact:
            return _settled(Verdict.WRONG)
        if self._processes is None:
            self._processes = Processes(PROGRAM, self._workers, self._limits)
        request = json.dumps([scored.family, self._level, scored.entry, answer])  # ASCII on one line
        return self._processes.send(request.encode() + b"\n")

    def close(self) -> None:
        """Stops the processes."""
        self._closed = True
        if self._processes is not None:
            self._processes.close()


def _settled(verdict: Verdict) -> "Future[Verdict]":
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future
