"""Prompts, sampling and parsing of synthetic examples.

Shape suffixes: N problems, M samples per problem, T tokens.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mass_jax import sampling
from mass_jax.llama.tokenizer import encode
from mass_jax.method.models import Solver, Weights
from mass_jax.method.text import Rollout, Text, TooLong, encode_pairs, encode_prompts, join_rollout
from mass_jax.tasks.base import Example, Problem, Rejected, Task, instructed_prompt
from mass_jax.types import Adapter, Tokenizer

FEW_SHOT_BUCKET = 64  # few-shot prompts are padded to a multiple of it, in tokens


class SyntheticExamples(NamedTuple):
    """Synthetic examples of N problems, M each.

    Attributes:
        texts_NM: the sampled texts.
        parsed_NM: the parsed texts; `Rejected` entries are masked rows of the arrays.
        examples: examples in solver form, [N, M, T], on which the inner loop trains.
        scorer_texts: examples in scorer form, [N, M, T].
    """

    texts_NM: list[list[str]]
    parsed_NM: list[list[Example | Rejected]]
    examples: Text
    scorer_texts: Text

    @property
    def kept_NM(self) -> np.ndarray:
        """1 where an example parsed and fits its row, float32."""
        return np.asarray(np.asarray(self.examples.target_BT).any(-1), np.float32)

    def reasons(self) -> collections.Counter[str]:
        """Returns the number of rejected texts by reason."""
        return collections.Counter(p.reason for row in self.parsed_NM for p in row if isinstance(p, Rejected))


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """Converts problems to prompts, and samples to texts and examples.

    Attributes:
        tokenizer: tokenizer of the solver.
        task: the task.
        max_prompt_tokens: length of solver prompts; a longer prompt is an error.
        max_generator_prompt_tokens: length of generator prompts; a longer prompt is an error.
        max_example_tokens: length at which a generated example is cut off.
        max_answer_tokens: length at which an answer is cut off.
        end_token: token that ends every completion; None uses the tokenizer's eos token.
        max_target_tokens: length of the longest answer to adapt to; a longer example is rejected. None sets no limit.
    """

    tokenizer: Tokenizer
    task: Task
    max_prompt_tokens: int
    max_generator_prompt_tokens: int
    max_example_tokens: int
    max_answer_tokens: int
    end_token: int | None = None
    max_target_tokens: int | None = None

    def generator_prompts(self, problems: Sequence[Problem], instructed: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Returns the prompts x_i of the generator, as tokens [N, T] and lengths [N].

        Args:
            problems: the target problems.
            instructed: whether to use the task's instructed prompts.

        Raises:
            TooLong: a prompt does not fit; the message names the flag.
            UserError: the task has no instructed prompts.
        """
        prompt = functools.partial(instructed_prompt, self.task) if instructed else self.task.generator_prompt
        prompts = [prompt(problem.problem) for problem in problems]
        return encode_prompts(
            self.tokenizer, prompts, self.max_generator_prompt_tokens, flag="max_generator_prompt_tokens"
        )

    def solver_prompts(self, problems: Sequence[Problem]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the prompts of the solver, as tokens [N, T] and lengths [N].

        Raises:
            TooLong: a prompt does not fit; the message names the flag.
        """
        prompts = [self.task.solver_prompt(problem.problem) for problem in problems]
        return encode_prompts(self.tokenizer, prompts, self.max_prompt_tokens)

    def few_shot_prompts(
        self, problems: Sequence[Problem], shots: Sequence[Sequence[Example]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns solver prompts after the solved problems `shots[n]`; lengths are bucketed to limit compilations."""
        prompts = [self.task.solver_prompt(p.problem, s) for p, s in zip(problems, shots, strict=True)]
        longest = max(len(encode(self.tokenizer, prompt)) for prompt in prompts)
        return encode_prompts(self.tokenizer, prompts, -(-longest // FEW_SHOT_BUCKET) * FEW_SHOT_BUCKET)

    def gold(self, problems: Sequence[Problem]) -> Rollout:
        """Returns gold solutions as rows [N, 1, T]; their log-probabilities are undefined and set to 0.

        Raises:
            TooLong: a gold solution does not fit; the message names the problem.
        """
        text, too_long = self._encode_gold(problems)
        if too_long:
            bad = problems[int(np.argmin(np.asarray(text.mask_BT).any(-1)))]
            other = "" if self.max_target_tokens is None else " or --max_target_tokens"
            raise TooLong(f"the gold solution of {bad.id!r} does not fit; raise --max_answer_tokens{other}")
        text = jax.tree.map(lambda leaf: leaf[:, None], text)
        return Rollout(text, np.zeros_like(text.target_BT))

    def fitting_gold(self, problems: Sequence[Problem]) -> Text | None:
        """Returns the gold solutions that fit, as rows [N, T] in solver form; None if none fits."""
        text, _ = self._encode_gold(problems)
        fits_N = np.asarray(text.mask_BT).any(-1)
        return jax.tree.map(lambda leaf: leaf[fits_N], text) if fits_N.any() else None

    def _encode_gold(self, problems: Sequence[Problem]) -> tuple[Text, int]:
        """Returns gold solutions as rows [N, T], and the number of those that do not fit, which are masked."""
        pairs = [(self.task.solver_prompt(p.problem), p.solution) for p in problems]
        return self._encode_solver_pairs(pairs)

    def _encode_solver_pairs(self, pairs: Sequence[tuple[str, str] | None]) -> tuple[Text, int]:
        """Encodes pairs as rows in solver form; returns the number of those that do not fit, which are masked."""
        length = self.max_prompt_tokens + self.max_answer_tokens
        return encode_pairs(self.tokenizer, pairs, length, self.end_token, self.max_target_tokens)

    def read(self, samples: sampling.Samples) -> list[list[str]]:
        """Decodes samples, without special tokens and without the stop token of each.

        Args:
            samples: from `sample`, [N, M, T].

        Returns:
            N lists of M texts.
        """
        tokens_NMT = np.asarray(samples.tokens_NMT)
        # A stop token that only a configuration names is not special to the tokenizer.
        counts_NM = np.asarray(samples.lengths_NM) - np.asarray(samples.finished_NM)
        rows = [t[:c] for t, c in zip(tokens_NMT.reshape(-1, tokens_NMT.shape[-1]), counts_NM.ravel(), strict=True)]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        width = counts_NM.shape[1]
        return [texts[i : i + width] for i in range(0, len(texts), width)]

    def parse(self, problems: Sequence[Problem], texts_NM: list[list[str]]) -> SyntheticExamples:
        """Parses the texts that were sampled for each problem; texts that cannot be trained on are masked."""
        parsed = [
            [self.task.parse_example(text, problem.problem) for text in texts]
            for problem, texts in zip(problems, texts_NM, strict=True)
        ]
        return self.encode(problems, texts_NM, parsed)

    def encode(
        self, problems: Sequence[Problem], texts_NM: list[list[str]], parsed_NM: list[list[Example | Rejected]]
    ) -> SyntheticExamples:
        """Encodes parsed examples as rows in solver form and in scorer form."""
        solver_pairs: list[tuple[str, str] | None] = []
        scorer_pairs: list[tuple[str, str] | None] = []
        for problem, row in zip(problems, parsed_NM, strict=True):
            for parsed in row:
                if isinstance(parsed, Rejected):
                    solver_pairs.append(None)
                    scorer_pairs.append(None)
                else:
                    solver_pairs.append((self.task.solver_prompt(parsed.problem), parsed.solution))
                    scorer_pairs.append((self.task.scorer_text(problem.problem, parsed), ""))
        N, M = len(problems), len(parsed_NM[0])
        solver_text, too_long = self._encode_solver_pairs(solver_pairs)
        scorer_text, too_long_to_score = encode_pairs(
            self.tokenizer, scorer_pairs, self.max_prompt_tokens + self.max_example_tokens, self.end_token
        )
        if too_long or too_long_to_score:
            fits_B = np.logical_and(np.any(solver_text.mask_BT, -1), np.any(scorer_text.mask_BT, -1))
            solver_text = jax.tree.map(lambda leaf: leaf * fits_B[:, None].astype(leaf.dtype), solver_text)
            parsed_NM = self._mark_too_long(parsed_NM, fits_B.reshape(N, M))
        shape = functools.partial(jax.tree.map, lambda leaf: leaf.reshape(N, M, -1))
        return SyntheticExamples(texts_NM, parsed_NM, shape(solver_text), shape(scorer_text))

    @staticmethod
    def _mark_too_long(parsed_NM: list[list[Example | Rejected]], fits_NM: np.ndarray) -> list[list[Any]]:
        """Replaces examples that do not fit their rows by `Rejected`."""
        return [
            [
                Rejected("longer than its row") if isinstance(parsed, Example) and not fits else parsed
                for parsed, fits in zip(row, fits_M, strict=True)
            ]
            for row, fits_M in zip(parsed_NM, fits_NM, strict=True)
        ]


@functools.partial(jax.jit, static_argnames=("solver", "num_samples", "max_new_tokens", "temperature"))
def sample(
    solver: Solver,
    weights: Weights,
    inner: Adapter | None,
    prompts_NT: jax.Array,
    lengths_N: jax.Array,
    keys_N: jax.Array,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
) -> sampling.Samples:
    """Samples completions of each prompt from the solver.

    Args:
        solver: the language model (static).
        weights: the generator's weights.
        inner: inner adapters, one per prompt; None samples from the unadapted model.
        prompts_NT: right-padded prompt tokens.
        lengths_N: prompt lengths.
        keys_N: one random key per prompt.
        num_samples: number of samples per prompt, M.
        max_new_tokens: largest number of generated tokens.
        temperature: sampling temperature; 0 is greedy.

    Returns:
        The samples, [N, M, T].
    """
    return sampling.sample(
        solver.model,
        solver.params(weights),
        prompts_NT,
        lengths_N,
        keys_N,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        settings=sampling.Settings(temperature=temperature),
        stop_tokens=solver.config.stop_tokens,
        adapters=solver.adapter(weights, inner),
    )


def rollout(prompts: tuple[np.ndarray, np.ndarray], samples: sampling.Samples) -> Rollout:
    """Joins prompts and samples to rows [N, M, T], with the log-probabilities of the generated tokens."""
    tokens, logprobs, lengths = map(np.asarray, (samples.tokens_NMT, samples.logprobs_NMT, samples.lengths_NM))
    return join_rollout(*prompts, tokens, logprobs, lengths)
