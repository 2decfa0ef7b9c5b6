"""A model that continues texts without adapting to them."""

import collections
import dataclasses
import logging
from collections.abc import Sequence

from mass_jax.errors import UserError
from mass_jax.harnesses.requests import Completion, Request, Score, cut
from mass_jax.harnesses.scoring import Row, scores
from mass_jax.llama import Llama, LlamaConfig, lora
from mass_jax.llama.tokenizer import encode
from mass_jax.sampling import Continuation, Engine
from mass_jax.serving import stages
from mass_jax.types import Adapter, Params, Tokenizer

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PlainModel:
    """Continues and scores texts exactly as they are given.

    Attributes:
        model: the model.
        params: its parameters.
        adapter: adapter of all texts, such as that of a trained generator, or None.
        tokenizer: from `llama.tokenizer.load`.
        stop_tokens: tokens that end a text.
        batch: texts per batch; smaller batches are padded to it.
        max_length: positions of prompt and generated text.
        seed: random seed of sampled texts.
        label: description of the model.
    """

    model: Llama
    params: Params
    adapter: Adapter | None
    tokenizer: Tokenizer
    stop_tokens: tuple[int, ...]
    batch: int
    max_length: int
    seed: int = 0
    label: str = ""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Continues the text of each request.

        Prompts lose their first tokens where they and `max_tokens` exceed the model's positions, with a warning.

        Raises:
            UserError: a limit of tokens leaves no room for a prompt, or a prompt has no tokens.
        """
        groups = collections.defaultdict(list)
        prompts = [self._prompt(request) for request in requests]
        for i, (request, (_, count)) in enumerate(zip(requests, prompts, strict=True)):
            groups[count, request.stops, request.settings].append(i)
        found: dict[int, Completion] = {}
        for (count, *_), members in groups.items():
            members.sort(key=lambda i: -len(prompts[i][0]))
            for start in range(0, len(members), self.batch):
                chosen = members[start : start + self.batch]
                drawn = self._draw([requests[i] for i in chosen], [prompts[i][0] for i in chosen], count)
                found |= dict(zip(chosen, drawn, strict=True))
        return [found[i] for i in range(len(requests))]

    def check(self, request: Request) -> None:
        """Checks that a request can be answered; raises a UserError as `generate` does."""
        self._prompt(request)

    def score(self, rows: Sequence[Row]) -> list[Score]:
        """Scores continuations, as tokens; see `scoring.scores`."""
        return scores(self.model, lora.variables(self.params, self.adapter), rows, self.batch, self.max_length)

    def with_adapter(self, adapter: Adapter | None) -> "PlainModel":
        """Returns a model with another adapter."""
        return dataclasses.replace(self, adapter=adapter)

    def _prompt(self, request: Request) -> tuple[list[int], int]:
        """Returns the tokens of a prompt and the number of tokens to generate."""
        tokens, count = encode(self.tokenizer, request.text), request.max_tokens
        if not tokens:
            raise UserError("a prompt has no tokens: add text to it, or use a tokenizer that adds a bos token")
        if count is not None and not 1 <= count < self.max_length:
            raise UserError(f"at most {count} tokens were requested; give 1 to {self.max_length - 1}, for this model")
        room = self.max_length - (count or 1)
        if len(tokens) > room:
            _log.warning("a prompt of %d tokens was cut to its last %d", len(tokens), room)
            tokens = tokens[-room:]
        return tokens, count or min(self.max_length // 2, self.max_length - len(tokens))

    def _draw(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]], count: int) -> list[Completion]:
        """Continues one batch of prompts that share all settings."""
        first, padding = requests[0], [prompts[-1]] * (self.batch - len(prompts))
        names = [request.name for request in requests] + ["padding"] * len(padding)
        keys_N = stages.keys_named(stages.keys_of(self.seed, names), "answer")
        rows = Engine(self.model, self.tokenizer)(
            self.params,
            [*prompts, *padding],
            keys_N,
            num_samples=1,
            max_new_tokens=count,
            settings=first.settings,
            stop_tokens=self.stop_tokens,
            stop_strings=first.stops,
            adapters=self.adapter,
        )
        return [self._completion(row[0], len(prompt), first.stops) for row, prompt in zip(rows, prompts, strict=False)]

    def _completion(self, drawn: Continuation, prompt_tokens: int, stops: tuple[str, ...]) -> Completion:
        """Returns a continuation without its stop token, which need not be special to the tokenizer."""
        tokens = drawn.tokens_T.tolist()
        count = len(tokens)
        if tokens and tokens[-1] in self.stop_tokens:
            tokens = tokens[:-1]
        text = cut(self.tokenizer.decode(tokens, skip_special_tokens=True), stops)
        return Completion(text, prompt_tokens, count, drawn.finish)


def positions(config: LlamaConfig) -> int:
    """Returns the number of positions that the model was trained on, at most its sliding window."""
    return min(config.max_position_embeddings, config.sliding_window or config.max_position_embeddings)
