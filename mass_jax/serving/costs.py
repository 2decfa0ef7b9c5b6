"""Token budgets and floating-point operations of adapting to one question. Pure functions."""

from collections.abc import Mapping

from mass_jax.config import Config
from mass_jax.llama import LlamaConfig
from mass_jax.llama.flops import Tokens
from mass_jax.llama.flops import flops as model_flops


def worst_case(config: Config, samples: int, suite_tokens: int) -> int:
    """Returns the most tokens that adapting to one question can use, excluding the unadapted answer.

    Args:
        config: settings.
        samples: answers that the answer gate samples per example; 0 without that gate.
        suite_tokens: tokens of the regression suite.

    >>> worst_case(Config(), samples=16, suite_tokens=270)
    1082
    """
    m, row = config.num_test_examples, config.max_prompt_tokens + config.max_answer_tokens
    written = config.max_generator_prompt_tokens + m * config.max_example_tokens
    checked = m * row + (m * (config.max_prompt_tokens + samples * config.max_answer_tokens) if samples else 0)
    return written + checked + (config.inner_steps + 1) * m * row + suite_tokens + row


def flops(model: LlamaConfig, config: Config, tokens: Mapping[str, int]) -> int:
    """Returns the floating-point operations of one question; see `mass_jax.llama.flops`.

    Args:
        model: the language model.
        config: settings.
        tokens: tokens by phase; "update" counts each trained token once per step and once more for the final loss.
    """
    each = tokens.get("update", 0) / (config.inner_steps + 1)
    read = sum(count for phase, count in tokens.items() if phase != "update") + each
    counted = Tokens(read=read, written=0, trained=each * config.inner_steps)
    return round(model_flops(model, counted, inner_steps=config.inner_steps, lora_blocks=config.lora_blocks))
