"""Reward signal: its definition, and warnings for training without it.

Shape suffixes: N problems, M samples per problem.
"""

from collections.abc import Iterable, Mapping

import jax
from absl import logging

WINDOW = 10  # consecutive steps without signal between two warnings
WORTH_A_WARNING = 0.1  # share of steps without signal


def has_signal(rewards_NM: jax.Array) -> jax.Array:
    """Returns whether the rewards of each problem differ.

    This is the definition of signal in this project. Advantages are normalized within a problem, so equal rewards (all
    examples rejected, all attempts incorrect, or a non-finite gradient, which counts as 0) do not say which example is
    better; the generator then learns at most to write text that is not rejected (`mass_jax.method.rejected`). The
    metrics `tasks_without_signal` and `frac_reward_zero_std` are the number and the share of problems without signal.

    >>> import jax.numpy as jnp
    >>> has_signal(jnp.array([[0.0, 0.0], [0.5, 0.5], [0.5, -0.5]]))
    Array([False, False,  True], dtype=bool)
    """
    return rewards_NM.max(-1) > rewards_NM.min(-1)


def signal_metrics(rewards_NM: jax.Array) -> dict[str, jax.Array]:
    """Returns the number and the share of problems without signal, as scalars to log."""
    silent_N = ~has_signal(rewards_NM)
    return {"tasks_without_signal": silent_N.sum(), "frac_reward_zero_std": silent_N.mean()}


class SignalWatch:
    """Warns of steps in which no problem has signal: once per window of such steps, and at the end.

    Args:
        label: name of the training run in log lines.
        earlier: metrics of the steps before the run was resumed.
    """

    def __init__(self, label: str, earlier: Iterable[Mapping[str, float]] = ()):
        self._label = label
        self._steps = self._silent = self._in_a_row = 0
        self._advice = ""
        for metrics in earlier:
            self._count(metrics)

    def note(self, metrics: Mapping[str, float]) -> None:
        """Counts one step, and warns at the end of a window.

        Args:
            metrics: metrics of the step.
        """
        self._count(metrics)
        if self._in_a_row and self._in_a_row % WINDOW == 0:
            logging.warning("%s: no signal in the last %d steps: %s", self._label, self._in_a_row, self._advice)

    def summarize(self) -> None:
        """Logs the share of steps without signal, if there were any."""
        if self._silent:
            share = self._silent / self._steps
            level = logging.WARNING if share >= WORTH_A_WARNING else logging.INFO
            line = "%s: %d of %d steps (%.0f %%) had no signal, so rewards ranked no examples; in the last one: %s"
            logging.log(level, line, self._label, self._silent, self._steps, 100 * share, self._advice)

    def _count(self, metrics: Mapping[str, float]) -> None:
        """Updates the counts by one step."""
        silent = metrics.get("frac_reward_zero_std") == 1
        self._steps += 1
        self._silent += silent
        self._in_a_row = self._in_a_row + 1 if silent else 0
        if silent:
            self._advice = _advice(metrics)


def _advice(metrics: Mapping[str, float]) -> str:
    """Returns the likely cause of a step without signal, and the flags to change."""
    if metrics.get("kept_share") == 0:
        reasons = {n.partition("/")[2]: count for n, count in metrics.items() if n.startswith("rejected/")}
        worst = f", most often for {max(reasons, key=reasons.__getitem__)!r}" if reasons else ""
        return (
            f"every example was rejected{worst}; raise --max_example_tokens, or use a --model that writes examples in "
            f"the format of --task"
        )
    if metrics.get("right_rate") == 0:
        return "no attempt was correct; raise --num_attempts or --max_answer_tokens, or use --outer=gold"
    if "kept_share" not in metrics and metrics.get("reward") in (0, 1):
        verdict = "correct" if metrics["reward"] else "incorrect"
        return f"all attempts were {verdict}; choose problems of another difficulty"
    return "the rewards of each problem were equal; raise --num_examples or --temperature"
