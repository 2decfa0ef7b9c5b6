"""What a question costs, in tokens and floating-point operations. Pure.

A token read or written takes 2 P operations, P the parameters of the model; a token trained on takes 4 P a step, since
only adapters get gradients: forward 2 P, backward through the activations 2 P. Attention between tokens is
left out, which is little over texts so short.
"""

from collections.abc import Mapping

from mass_jax.config import Config

PHASES = ("answer", "examples", "gates", "update", "regression", "second_answer")


def worst_case(config: Config, samples: int, suite_tokens: int) -> int:
    """Most tokens that adapting to one question can take, the plain answer left out.

    >>> worst_case(Config(), samples=16, suite_tokens=360)
    1300
    """
    prompt, answer, m = config.max_prompt_tokens, config.max_answer_tokens, config.num_test_examples
    written = prompt + m * config.max_example_tokens
    checked = m * (prompt + answer) + (m * (prompt + samples * answer) if samples else 0)
    trained = (config.inner_steps + 1) * m * (prompt + answer)
    return written + checked + trained + suite_tokens + prompt + answer


def flops(tokens: Mapping[str, int], steps: int, parameters: int) -> int:
    """Operations of one question.

    Args:
        tokens: read or written, by phase; "update" counts each trained token once a step, and once for the last loss.
        steps: of the update.
        parameters: P.

    >>> flops({"answer": 10, "update": 30}, steps=2, parameters=1000)
    120000
    """
    updating = tokens.get("update", 0)
    backward = updating * steps // (steps + 1)
    return 2 * parameters * (sum(tokens.values()) + backward)
