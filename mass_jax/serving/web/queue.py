"""The queue between requests and the model: bounded, answered in batches by one thread.

Every accepted question ends as an event of the log or as a record of kind "unanswered", unless the process is killed.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import math
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple

from absl import logging

from mass_jax.audit.chain import Broken
from mass_jax.serving.service import AdaptationService, Answer, WeightsChanged
from mass_jax.tasks.base import Problem

_LEFT, _STOPPED = "the client disconnected", "the server stopped"


class Unavailable(Exception):
    """A question is not accepted.

    Attributes:
        kind: why: the queue is full, the id is being answered, or the server answers no more questions.
        retry_after: seconds after which another try may succeed.
    """

    def __init__(self, kind: Literal["full", "duplicate", "stopped"], message: str, retry_after: int):
        super().__init__(message)
        self.kind, self.retry_after = kind, retry_after


class Progress(NamedTuple):
    """A phase of `batch.PHASES` has begun."""

    phase: str


class Failed(NamedTuple):
    """The question is not answered; `reason` is one line."""

    reason: str


Update = Progress | Failed | Answer


@dataclasses.dataclass(eq=False)
class Accepted:
    """An accepted question.

    Attributes:
        question: the question.
        ahead: number of questions that were waiting before it.
    """

    question: Problem
    ahead: int
    _updates: asyncio.Queue[Update] = dataclasses.field(default_factory=asyncio.Queue)
    _left: bool = False

    async def updates(self, seconds: float) -> AsyncGenerator[Update | None, None]:
        """Yields progress, and last the answer or a failure; a caller that stops early gives up the question.

        Args:
            seconds: time without an update after which None is yielded, so that the caller can check its client.
        """
        update: Update | None = None
        try:
            while not isinstance(update, Answer | Failed):
                try:
                    async with asyncio.timeout(seconds):
                        update = await self._updates.get()
                except TimeoutError:
                    update = None
                yield update
        finally:
            self._left = True

    def tell(self, update: Update) -> None:
        """Adds an update."""
        self._updates.put_nowait(update)

    @property
    def left(self) -> bool:
        """Whether nobody is waiting for the answer."""
        return self._left


class AnswerQueue:
    """Accepts questions up to a limit and answers them in batches; all methods are called from one event loop.

    Args:
        service: answers the questions. After this, only the queue's thread may use it to answer or to record.
        limit: largest number of waiting questions, without those being answered.

    Attributes:
        failure: why no more questions are answered, in one line; "" if they are.
        answered: number of questions answered.
    """

    def __init__(self, service: AdaptationService, limit: int):
        self._service, self._limit = service, limit
        self._waiting: collections.deque[Accepted] = collections.deque()
        self._answering: list[Accepted] = []
        self._wake, self._stopped = asyncio.Event(), False
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "mass_jax-answers")
        self._seconds = 1.0  # of a batch
        self.failure, self.answered = "", 0

    @property
    def waiting(self) -> int:
        """Number of waiting questions."""
        return len(self._waiting)

    @property
    def state(self) -> Literal["ok", "stopping", "failed"]:
        """Whether questions are accepted."""
        return "failed" if self.failure else "stopping" if self._stopped else "ok"

    def accept(self, question: Problem) -> Accepted:
        """Accepts a question.

        Raises:
            Unavailable: the queue is full, stopped or failed, or the id is being answered.
        """
        if self.failure or self._stopped:
            raise Unavailable("stopped", self.failure or "the server is stopping", 10)
        again = max(1, min(600, math.ceil(self._seconds * (1 + len(self._waiting) / self._service.batch))))
        if any(other.question.id == question.id for other in (*self._waiting, *self._answering)):
            raise Unavailable("duplicate", f"the id {question.id[:60]!r} is being answered; wait for it", again)
        if len(self._waiting) >= self._limit:
            raise Unavailable("full", f"{self._limit} questions are waiting; try again in {again} s", again)
        accepted = Accepted(question, len(self._waiting))
        self._waiting.append(accepted)
        self._wake.set()
        return accepted

    async def run(self) -> None:
        """Answers questions until `stop` is called and none are waiting."""
        while self._waiting or not self._stopped:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            here = [accepted for accepted in self._waiting if not accepted.left]
            gone = [accepted for accepted in self._waiting if accepted.left]
            self._answering, self._waiting = here[: self._service.batch], collections.deque(here[self._service.batch :])
            if gone:
                await self._give_up(gone, _LEFT)
            if self._answering:
                await self._answer(self._answering)
            self._answering = []

    def stop(self) -> None:
        """Accepts no more questions; those that are waiting are still answered."""
        self._stopped = True
        self._wake.set()

    async def drop_waiting(self) -> None:
        """Records the waiting questions as not answered."""
        dropped = list(self._waiting)
        self._waiting.clear()
        await self._give_up(dropped, _STOPPED)

    def close(self) -> None:
        """Ends the thread, after the batch that it is answering."""
        self._thread.shutdown()

    async def _answer(self, batch: Sequence[Accepted]) -> None:
        """Answers one batch and tells its clients."""
        loop, began = asyncio.get_running_loop(), time.monotonic()

        def report(phase: str) -> None:
            for accepted in batch:
                loop.call_soon_threadsafe(accepted.tell, Progress(phase))

        questions = [accepted.question for accepted in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._service.answer_batch, questions, report)
        except (WeightsChanged, Broken) as error:
            self.failure = "; ".join(str(error).splitlines())
            logging.error("no more questions are answered: %s", self.failure)
            dropped = [*batch, *self._waiting]
            self._waiting.clear()
            await self._give_up(dropped, self.failure)
        except Exception as error:  # of a user's task, of XLA, or a full disk; it may not concern the next batch
            logging.exception("a batch of %d questions failed", len(batch))
            await self._give_up(batch, f"the server failed ({type(error).__name__})")
        else:
            self._seconds += 0.3 * (time.monotonic() - began - self._seconds)
            self.answered += len(answers)
            for accepted, answer in zip(batch, answers, strict=True):
                accepted.tell(answer)

    async def _give_up(self, given_up: Sequence[Accepted], reason: str) -> None:
        """Records questions as not answered and tells their clients."""
        questions = [accepted.question for accepted in given_up]
        record = self._service.record_unanswered
        try:
            if questions:
                await asyncio.get_running_loop().run_in_executor(self._thread, record, questions, reason)
        except (OSError, Broken) as error:
            logging.error("%d unanswered questions were not recorded (%s)", len(questions), error)
        for accepted in given_up:
            accepted.tell(Failed(reason))
