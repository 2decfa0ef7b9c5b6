"""The exact reward ranks useful examples first, before anything is trained."""

import jax
import numpy as np

from mass_jax.config import Config
from mass_jax.method import meta_step
from mass_jax.stats import auc
from mass_jax.training import example_metrics
from mass_jax.training.components import assemble
from mass_jax.training.learners import mass_learner

STEPS, TASKS, EXAMPLES = 10, 8, 8


def test_rewards_rank_useful_examples_first():
    components = assemble(Config(num_examples=4, num_train_problems=20, num_eval_problems=10, num_attempts=3))
    gold = mass_learner(components.config, components.rollouts.loop, components.scorer, "gold")
    start = components.pretrained()
    problems = components.problems(seed=0).train
    gradients = jax.jit(meta_step.score_gradients, static_argnames="learner")
    rewards, useful = [], []
    for i in range(STEPS):
        key = jax.random.fold_in(jax.random.key(0), i)
        tasks = [problems[(i * TASKS + j) % len(problems)] for j in range(TASKS)]
        synthetic, _ = components.rollouts.write_examples(start, tasks, jax.random.split(key, TASKS), EXAMPLES)
        adapters = gold.loop.init_adapters(jax.random.split(jax.random.fold_in(key, 1), TASKS))
        solutions, right_NJ = components.rollouts.dialogue.gold(tasks), np.ones((TASKS, 1), np.float32)
        batch = meta_step.TaskBatch(synthetic.examples, synthetic.scorer_texts, None, solutions, right_NJ, adapters)
        found = gradients(gold, start, np.full((TASKS, EXAMPLES), 0.5, np.float32), batch)
        kept = synthetic.kept_NM.astype(bool)
        rewards.append(-np.asarray(found.meta)[kept])
        useful.append(example_metrics.useful_examples(components.rollouts.dialogue.task, tasks, synthetic)[kept])
    assert auc(np.concatenate(rewards), np.concatenate(useful)) > 0.65
