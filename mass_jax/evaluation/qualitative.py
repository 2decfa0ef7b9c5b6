"""Qualitative examples: what the generator writes for a problem before and after meta-training, and the effect.

Shape suffixes: N problems, M examples per problem.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mass_jax.method import meta_step
from mass_jax.method.models import Weights
from mass_jax.tasks.base import Problem, Rejected
from mass_jax.training.compiling import announced
from mass_jax.training.components import Components
from mass_jax.training.learners import mass_learner
from mass_jax.training.rollout import filled, scores_jit
from mass_jax.types import Params

_gradients = jax.jit(meta_step.score_gradients, static_argnames="learner")


def worked_examples(
    components: Components, stages: dict[str, Weights], scorer: Params, problems: Sequence[Problem], seed: int
) -> list[dict[str, Any]]:
    """Returns each problem's examples, with scores and rewards, and answers at every stage of the generator.

    Args:
        components: the components of the run.
        stages: generators by name, e.g. {"before": ..., "after": ...}.
        scorer: trained scorer parameters, used at every stage.
        problems: at most one evaluation batch; fewer are padded to a batch, so that nothing is compiled again.
        seed: random seed of the examples.

    Returns:
        One record per problem, ready for JSON. Rewards are -dL_outer/ds_i at the scorer's scores, with gold solutions.
    """
    batch = filled(problems, components.config.eval_batch)
    keys = jax.random.split(jax.random.key(seed), (2, len(batch)))
    results = {name: _stage(components, weights, scorer, batch, keys) for name, weights in stages.items()}
    return [
        {"id": p.id, "problem": p.problem, "answer": p.answer, "subject": p.subject}
        | {"stages": {name: rows[n] for name, rows in results.items()}}
        for n, p in enumerate(problems)
    ]


def _stage(
    components: Components, weights: Weights, scorer: Params, problems: Sequence[Problem], keys: jax.Array
) -> list[dict[str, Any]]:
    """Returns the examples and answers of one generator, one entry per problem."""
    config, rollouts, dialogue = components.config, components.rollouts, components.rollouts.dialogue
    learner = mass_learner(config, rollouts.loop, components.scorer, "gold")
    synthetic, generated = rollouts.write_examples(weights, problems, keys[0], config.num_test_examples)
    adapters = rollouts.loop.init_adapters(keys[1])
    right_N1 = np.ones((len(problems), 1), np.float32)
    batch = meta_step.TaskBatch(
        synthetic.examples, synthetic.scorer_texts, generated, dialogue.gold(problems), right_N1, adapters
    )
    with announced("scores and rewards of qualitative examples"):
        scores_NM = scores_jit(learner.scorer, scorer, synthetic.scorer_texts)
        gradients = _gradients(learner, weights, scores_NM, batch)
    adapted = rollouts.adapt_to_examples(weights, synthetic, keys[1])
    answers = {
        name: rollouts.attempt(weights, inner, problems, keys[0], 1, temperature=0.0).responses_NM
        for name, inner in (("unadapted", None), ("adapted", adapted))
    }
    scores, rewards = rollouts.feed.get((scores_NM, -gradients.meta), len(problems))
    rows = []
    for n in range(len(problems)):
        examples: list[dict[str, Any]] = []
        for m, (text, parsed) in enumerate(zip(synthetic.texts_NM[n], synthetic.parsed_NM[n], strict=True)):
            if isinstance(parsed, Rejected):
                examples.append({"text": text, "rejected": parsed.reason})
            else:
                useful = dialogue.task.useful(problems[n], parsed)
                rated = {"score": float(scores[n, m]), "reward": float(rewards[n, m]), "useful": useful}
                examples.append({"text": text} | rated)
        rows.append({"examples": examples} | {name: texts_NM[n][0] for name, texts_NM in answers.items()})
    return rows
