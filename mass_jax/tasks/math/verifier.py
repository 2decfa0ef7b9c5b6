"""From a response to a verdict: find the answer, settle what is plain at once, leave the rest to worker processes."""

import re
from collections.abc import Sequence
from concurrent.futures import Future

from mass_jax.tasks.math.answer import Unreadable, read
from mass_jax.tasks.math.grade import grade_quickly
from mass_jax.tasks.math.latex import last_boxed
from mass_jax.tasks.math.pool import Pool
from mass_jax.tasks.problem import Verdict

MAX_RESPONSE_CHARS = 100_000
_ANNOUNCED = re.compile(r"(?i)\b(?:answer|result)\s*(?:is|:|=)\s*:?\s*([^\n]{1,400})")


def final_answer(response: str) -> str:
    r"""The answer that a response ends in: its last `\boxed{...}`, else what follows `####`, else "answer is", else
    a response of a single line is the answer.

    Raises:
        Unreadable: if there is none; a box that never closes (a response cut short) is none.

    >>> final_answer(r"Adding, $x = 2$. So the answer is $\boxed{2}$.")
    '2'
    >>> final_answer("48 + 24 = 72\n#### 72")
    '72'
    >>> final_answer("The answer is 5.")
    '5'
    """
    if len(response) > MAX_RESPONSE_CHARS:
        raise Unreadable("response too long")
    if "\\boxed" in response or "\\fbox" in response:
        boxed = last_boxed(response)
        if boxed is None:
            raise Unreadable("box cut off")
        return boxed
    if "####" in response:
        return response.rsplit("####", 1)[1].strip().split("\n")[0]
    announced = _ANNOUNCED.findall(response)
    text = announced[-1] if announced else response.strip()
    if "\n" in text:
        raise Unreadable("no final answer")
    return _first_sentence(text)


def _first_sentence(text: str) -> str:
    """Up to a point that ends a sentence; the one in 3.5 does not."""
    return re.split(r"\.(?:\s|$)", text.strip(), maxsplit=1)[0].strip(" *:")


class Verifier:
    """Checks responses against gold answers.

    Args:
        pool: decides what is not plain.

    Example: `Verifier(pool).verify(["72"], ["48 + 24 = 72 #### 72"])` gives `[Verdict.RIGHT]`.
    """

    def __init__(self, pool: Pool):
        self._pool = pool

    def submit(self, gold: str, response: str) -> "Future[Verdict]":
        """A future of the verdict; done at once if the answer is plain. Never raises on text."""
        try:
            answer = final_answer(response)
            read(answer)
        except Unreadable:
            return _settled(Verdict.UNPARSABLE)
        verdict = grade_quickly(gold, answer)
        return self._pool.submit(gold, answer) if verdict is None else _settled(verdict)

    def verify(self, golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        """Verdicts in order; what needs a worker is under way while the rest is settled."""
        futures = [self.submit(gold, response) for gold, response in zip(golds, responses, strict=True)]
        return [future.result() for future in futures]


def _settled(verdict: Verdict) -> "Future[Verdict]":
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future
