"""Metrics of sampled texts: acceptance, usefulness, truncation, and how well scores and rewards rank examples.

Shape suffixes: N problems, M examples per problem, B examples of all problems.
"""

import collections
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.method import generate, meta_step, objective, policy_gradient
from mass_jax.method.text import Rollout, cut_off
from mass_jax.stats import auc
from mass_jax.tasks.base import Example, Problem, Rejected, Task
from mass_jax.training.rollout import Rollouts


def example_metrics(
    rollouts: Rollouts, tasks: Sequence[Problem], synthetic: generate.SyntheticExamples, output: meta_step.StepOutput
) -> dict[str, float]:
    """Returns the metrics of one step's synthetic examples, over all processes.

    Args:
        rollouts: has the task, and knows which problems this process handles.
        tasks: the problems of all processes.
        synthetic: the examples of this process's problems.
        output: scores and rewards of the step.

    Returns:
        The share of accepted examples, the count of each reason for rejection and, where the task can tell, the share
        of useful examples and the AUC at which scores and rewards rank them.
    """
    feed, count, rows = rollouts.feed, len(tasks), rollouts.feed.rows(len(tasks))
    scores_NM, rewards_NM = feed.get((output.scores_NM, output.rewards_NM), count)
    useful_NM = useful_examples(rollouts.dialogue.task, tasks[rows], synthetic)
    reasons_NM = [[p.reason if isinstance(p, Rejected) else None for p in row] for row in synthetic.parsed_NM]
    known_NM = [[None] * len(row) for row in reasons_NM] if useful_NM is None else useful_NM.tolist()
    own = zip(synthetic.kept_NM.tolist(), reasons_NM, known_NM, scores_NM.tolist(), rewards_NM.tolist(), strict=True)
    kept, reasons, useful, scores, rewards = (
        [value for row in column for value in row]
        for column in zip(*runtime.gather_rows(runtime.mine(rows, list(own))), strict=True)
    )
    metrics = {"kept_share": float(np.mean(kept))}
    counts = collections.Counter(reason for reason in reasons if reason is not None)
    metrics |= {f"rejected/{reason}": float(number) for reason, number in counts.items()}
    if None in useful:
        return metrics
    metrics["useful_share"] = float(np.mean(useful))
    kept_B, useful_B = np.array(kept, bool), np.array(useful, bool)
    for name, values in (("scorer_auc", scores), ("reward_auc", rewards)):
        area = auc(np.array(values)[kept_B], useful_B[kept_B])
        if area is not None:
            metrics[name] = area
    return metrics


def cut_off_shares(rollouts: Rollouts, tasks: Sequence[Problem], sampled: Mapping[str, Rollout]) -> dict[str, float]:
    """Returns the share of completions that reached their token limit, for each kind of rollout."""
    rows, stops = rollouts.feed.rows(len(tasks)), rollouts.solver.config.stop_tokens
    shares_N = {name: cut_off(rollout, stops).mean(-1) for name, rollout in sampled.items()}
    own = [list(row) for row in zip(*(share_N.tolist() for share_N in shares_N.values()), strict=True)]
    means = np.mean(runtime.gather_rows(runtime.mine(rows, own)), axis=0)
    return {f"{name}_cut_off": float(mean) for name, mean in zip(shares_N, means, strict=True)}


def sampler_metrics(config: Config, sampled: Mapping[str, Rollout]) -> dict[str, float]:
    """Returns the mismatch of an external sampler and the model, by kind of rollout; empty for the native one."""
    level: policy_gradient.RatioLevel = "token" if config.ratio_level == "token" else "sequence"
    metrics: dict[str, float] = {}
    for kind, rollout in sampled.items():
        if rollout.log_ratio_BT is not None:
            rows = objective.flatten_tasks((rollout.log_ratio_BT, rollout.text.target_BT))
            found = jax.device_get(_mismatch(*rows, config.sampler_ratio_cap, level))
            metrics |= {f"{kind}_{name}": float(value) for name, value in found.items()}
    return metrics


_mismatch = jax.jit(policy_gradient.sampler_mismatch, static_argnames=("cap", "level"))


def useful_examples(task: Task, tasks: Sequence[Problem], synthetic: generate.SyntheticExamples) -> np.ndarray | None:
    """Returns which examples [N, M] are useful (False if not parsed); None if the task cannot tell."""
    useful = [
        [isinstance(e, Example) and task.useful(problem, e) for e in row]
        for problem, row in zip(tasks, synthetic.parsed_NM, strict=True)
    ]
    return None if any(label is None for row in useful for label in row) else np.array(useful, bool)
