"""A model that poses each text as a question of its own task, as evaluation does, and can adapt to it.

Adapting means for a request of

- an answer: the service adapts to the question under its policy, and answers;
- a log-likelihood: the service adapts to the context as the question; the continuation is then scored after the
  solver's prompt for that question, by the adapted model if its answer was released, else by the unadapted one.
"""

import collections
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from mass_jax.errors import UserError
from mass_jax.harnesses.plain import PlainModel, positions
from mass_jax.harnesses.requests import Completion, Request, Score, cut
from mass_jax.harnesses.scoring import Row
from mass_jax.serving import AdaptationService, Answer, stages
from mass_jax.tasks.base import Problem
from mass_jax.types import Adapter, Tokenizer

Split = Callable[[str, str], Row]
"""Function that encodes a prompt and its continuation to the tokens of both."""

UNPOSED = Score(float("-inf"), False)
"""Score of continuations of a question that cannot be posed."""

_log = logging.getLogger(__name__)


class QuestionModel:
    """Answers and scores questions with the adaptation service, greedily.

    The id of a question is a hash of its text, so its random numbers do not depend on other questions or their order.

    Args:
        service: answers; it may have been loaded with `adapt=False`. Closed with this.
        adapters: dictionary that the service fills by its `on_adapter`: adapters by question id.

    Attributes:
        service: the service.
        plain: the model without adaptation.
        decisions: number of answers by decision.
    """

    def __init__(self, service: AdaptationService, adapters: dict[str, Adapter]):
        self.service, self._adapters = service, adapters
        self.decisions: collections.Counter[str] = collections.Counter()
        model = service.setup.model
        self._solver, self._weights, self._dialogue = model.solver, model.weights, model.dialogue
        self.plain = PlainModel(
            self._solver.model,
            self._solver.params(self._weights),
            self._solver.adapter(self._weights),
            self.tokenizer,
            self._solver.config.stop_tokens,
            service.batch,
            positions(self._solver.config),
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._dialogue.tokenizer

    @property
    def label(self) -> str:
        """Description of the model."""
        return self.service.setup.label

    @property
    def batch(self) -> int:
        """Questions per batch."""
        return self.service.batch

    def close(self) -> None:
        """Closes the service and its log."""
        self.service.__exit__(None, None, None)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answers the question of each request, or returns the answer that the log holds for it and the settings.

        Args:
            requests: greedy requests; equal questions are answered once.

        Raises:
            UserError: a request is not greedy.
        """
        for request in requests:
            self.check(request)
        texts = dict.fromkeys(request.text for request in requests if len(request.text) <= stages.MOST_CHARS)
        answers: dict[str, Answer] = {}
        asked = [Problem(name_of(text), text, "", "") for text in texts]
        for answer in self.service.stream(asked, resume=True, pad=True):
            self._adapters.clear()
            self._count(answer)
            answers[answer.problem] = answer
        return [self._completion(request, answers.get(request.text)) for request in requests]

    @staticmethod
    def check(request: Request) -> None:
        """Checks that a request can be answered; raises a UserError as `generate` does."""
        if request.settings.temperature:
            raise UserError("answers to questions are greedy: give temperature 0, or questions=false")

    def score(self, requests: Sequence[tuple[str, str]], split: Split) -> Iterator[tuple[int, Score]]:
        """Adapts to the question of each request, and scores the continuation.

        Args:
            requests: questions with continuations.
            split: encodes a prompt and its continuation to the tokens of both.

        Yields:
            Indices of requests with their scores, question by question. The score of a question that cannot be posed
            is minus infinity.
        """
        by_question = collections.defaultdict(list)
        for i, (question, _) in enumerate(requests):
            by_question[question].append(i)
        questions = [text for text in by_question if len(text) <= stages.MOST_CHARS]
        for text in by_question.keys() - set(questions):
            yield from ((i, UNPOSED) for i in by_question[text])
        for start in range(0, len(questions), self.batch):
            chunk = questions[start : start + self.batch]
            self._adapters.clear()
            for answer in self.service.answer_batch([Problem(name_of(text), text, "", "") for text in chunk]):
                self._count(answer)
                members = by_question[answer.problem]
                if answer.text is None:
                    yield from ((i, UNPOSED) for i in members)
                    continue
                prompt = self.service.task.solver_prompt(answer.problem)
                rows = [split(prompt, requests[i][1]) for i in members]
                inner = self._adapters.get(answer.id)
                model = self.plain.with_adapter(self._solver.adapter(self._weights, inner))
                yield from zip(members, model.score(rows), strict=True)
        self._adapters.clear()

    def _count(self, answer: Answer) -> None:
        self.decisions[answer.decision] += 1
        if answer.text is None:
            _log.warning("a question was not answered: %s", answer.reason)

    def _completion(self, request: Request, answer: Answer | None) -> Completion:
        """Returns an answer, cut as the request asks; None stands for a question that was too long to be posed."""
        if answer is None:
            reason = f"the problem has more than {stages.MOST_CHARS} characters"
            return Completion("", 0, 0, "stop", {"decision": "refused", "reason": reason})
        text, count = self._limited(answer.text or "", request.max_tokens)
        prompt = 0 if answer.text is None else answer.tokens["answer"] - self._tokens(answer.before or "") - 1
        most = self._dialogue.max_answer_tokens
        full = count >= (most if request.max_tokens is None else min(most, request.max_tokens))
        finish: Literal["stop", "length"] = "length" if full else "stop"
        new_tokens = count + (finish == "stop")  # the end token
        return Completion(cut(text, request.stops), prompt, new_tokens, finish, self._details(answer))

    def _limited(self, text: str, limit: int | None) -> tuple[str, int]:
        """Returns the first tokens of a text, and their number."""
        tokens = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if limit is None or len(tokens) <= limit:
            return text, len(tokens)
        return self.tokenizer.decode(tokens[:limit], skip_special_tokens=True), limit

    def _tokens(self, text: str) -> int:
        return stages.count_tokens(self._dialogue, text)

    def _details(self, answer: Answer) -> dict[str, Any]:
        """Returns what the log of the harness keeps of an answer."""
        return {
            "question": answer.id,
            "decision": answer.decision,
            "reason": answer.reason,
            "event": answer.event,
            "before": answer.before,
            "tokens": dict(answer.tokens),
            "flops": answer.flops,
        }


def name_of(question: str) -> str:
    """Returns the id of a question, a hash of its text.

    >>> name_of("4 kabo 3")
    '43c3072d8f32632b'
    """
    return hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:16]
