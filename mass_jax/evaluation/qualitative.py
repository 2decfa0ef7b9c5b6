"""Worked examples: what the generator wrote for a problem before and after meta-training, and what that did.

Letters: N tasks, M examples of a task.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mass_jax.evaluation.evaluate import filled
from mass_jax.method import meta_step
from mass_jax.method.models import Weights
from mass_jax.tasks.base import Problem, Rejected
from mass_jax.training import train
from mass_jax.training.components import Parts

_gradients = jax.jit(meta_step.score_gradients, static_argnames="learner")


def worked_examples(
    parts: Parts, stages: dict[str, Weights], scorer: Any, problems: Sequence[Problem], seed: int
) -> list[dict[str, Any]]:
    """One record a problem: for each stage of the generator its examples with scores and rewards, and its answers.

    Args:
        stages: generators by name, e.g. {"before": ..., "after": ...}.
        scorer: trained scorer parameters; the same scorer judges every stage.
        problems: at most a page full of them; they are filled up to a batch of the evaluation, whose compiled
            functions then serve here too.
        seed: of the examples.

    Returns:
        Records ready for JSON. Rewards are -dL_outer/ds_i at the scorer's scores, with the gold solution.
    """
    batch = filled(problems, parts.config.eval_batch)
    keys = jax.random.split(jax.random.key(seed), (2, len(batch)))
    found = {name: _stage(parts, weights, scorer, batch, keys) for name, weights in stages.items()}
    return [
        {"id": p.id, "problem": p.problem, "answer": p.answer, "subject": p.subject}
        | {"stages": {name: rows[n] for name, rows in found.items()}}
        for n, p in enumerate(problems)
    ]


def _stage(
    parts: Parts, weights: Weights, scorer: Any, problems: Sequence[Problem], keys: jax.Array
) -> list[dict[str, Any]]:
    learner = parts.learner("gold")
    practice, generated = train.write_examples(parts, weights, problems, keys[0], parts.config.num_test_examples)
    adapters = parts.loop.init_adapters(keys[1])
    right_N1 = np.ones((len(problems), 1), np.float32)
    batch = meta_step.TaskBatch(
        practice.examples, practice.scorer_texts, generated, parts.dialogue.gold(problems), right_N1, adapters
    )
    scores_NM = train.scores_jit(learner.scorer, scorer, practice.scorer_texts)
    gradients = _gradients(learner, weights, scores_NM, batch)
    adapted = train.adapt_jit(parts.loop, weights, adapters, practice.kept_NM, practice.examples)
    answers = {
        name: [row[0] for row in train.attempt(parts, weights, inner, problems, keys[0], 1, temperature=0.0)[2]]
        for name, inner in (("unadapted", None), ("adapted", adapted))
    }
    scores, rewards = parts.feed.get((scores_NM, -gradients.meta), len(problems))
    rows = []
    for n in range(len(problems)):
        examples: list[dict[str, Any]] = []
        for m, (text, parsed) in enumerate(zip(practice.texts_NM[n], practice.parsed_NM[n], strict=True)):
            if isinstance(parsed, Rejected):
                examples.append({"text": text, "rejected": parsed.reason})
            else:
                useful = parts.dialogue.task.useful(problems[n], parsed)
                judged = {"score": float(scores[n, m]), "reward": float(rewards[n, m]), "useful": useful}
                examples.append({"text": text} | judged)
        rows.append({"examples": examples} | {name: texts[n] for name, texts in answers.items()})
    return rows
