"""One process of a small training run.

Usage: python train_child.py WORKDIR [COORDINATOR COUNT INDEX]
"""

import dataclasses
import pathlib
import sys

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.training import train
from mass_jax.training.components import assemble

SETTINGS = {"steps": 4, "warmup_steps": 1, "tasks_per_step": 2, "num_examples": 2, "num_test_examples": 2}


def main(workdir: str, coordinator: str = "", count: str = "1", index: str = "0") -> None:
    runtime.join(coordinator, int(count), int(index), timeout=120)
    mesh = runtime.make_mesh()
    config = Config(**SETTINGS, num_train_problems=20, num_eval_problems=2, checkpoint_every=1)
    with runtime.use_mesh(mesh), runtime.stop_on_signals() as stop:
        components = assemble(config, mesh)
        # float64, since Adam's first step amplifies rounding errors of small gradients to full size.
        wide = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf.astype("float64"), params))(
            components.model.params
        )
        components = dataclasses.replace(components, model=dataclasses.replace(components.model, params=wide))
        problems = components.problems(0).train
        done = train.train_mass(components, problems, seed=0, outer="gold", workdir=pathlib.Path(workdir), stop=stop)
        if runtime.is_first():
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((done.weights.policy, done.scorer))]
            np.savez(pathlib.Path(workdir) / f"after{count}.npz", *leaves)


if __name__ == "__main__":
    main(*sys.argv[1:])
