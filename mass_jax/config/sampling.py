"""Settings of sampling: counts, temperature and lengths."""

import dataclasses

from mass_jax.config.fields import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Settings of sampling: counts, temperature and lengths."""

    num_examples: int = setting(12, "Number of synthetic examples m generated per problem in meta-training.", minimum=2)
    num_test_examples: int = setting(6, "Number of synthetic examples generated per problem at test time.", minimum=1)
    num_attempts: int = setting(
        6, "Number of attempts k that the adapted model samples per problem for --outer=verifier.", minimum=1
    )
    dynamic_sampling: int = setting(
        0,
        "Largest number of times that a step of --outer=verifier redraws problems whose attempts are all right or all "
        "wrong.",
        minimum=0,
    )
    temperature: float = setting(
        1.0, "Sampling temperature of examples and attempts; answers at test time are greedy.", minimum=0
    )
    max_prompt_tokens: int = setting(
        8, "Maximum length of a problem's prompt, in tokens; a longer prompt is an error.", minimum=1
    )
    max_generator_prompt_tokens: int = setting(
        8, "Maximum length of the generator's prompt, in tokens; a longer prompt is an error.", minimum=1
    )
    max_example_tokens: int = setting(12, "Maximum length of a generated example, in tokens.", minimum=1)
    max_answer_tokens: int = setting(4, "Maximum length of a generated answer, in tokens.", minimum=1)
    max_target_tokens: int = setting(
        0,
        "Maximum length of an answer to adapt to (of an example, attempt or gold solution), in tokens. Longer ones "
        "are rejected, and logits are computed for no other tokens. 0 sets no maximum.",
        minimum=0,
    )
    sampler: str = setting(
        "native",
        "Sampler of all completions: native; vllm, a server that holds the weights of --model; or module:class or "
        "file.py:class of an implementation of mass_jax.sampling.Sampler.",
    )
    sampler_url: str = setting("http://127.0.0.1:8000/v1", "Address of the server's API for --sampler=vllm.")
    sampler_timeout: float = setting(600.0, "Seconds that a request of --sampler=vllm may take.", minimum=0.001)
    sampler_tolerance: float = setting(
        0.1,
        "Largest mean difference between the log-probabilities of the server and of the model for --sampler=vllm, in "
        "nats per token; compared before the first sample.",
        minimum=0,
    )
    sampler_ratio_cap: float = setting(
        2.0,
        "Largest importance ratio of the model over an external --sampler, at --temperature=1; larger ones are "
        "truncated.",
        minimum=1,
    )
