"""MASS_gold of the paper: Llama-3.1-8B-Instruct on MATH, with the outer loss from gold solutions.

Command:  python -m experiments.train --preset=llama31_8b_gold --workdir=DIR --mesh=fsdp:4,tensor:4
          on a v5e:4x4 (16 chips), through python -m experiments.launch --backend=gcloud|xpk
Plan:     python -m experiments.plan --preset=llama31_8b_gold --topology=v5e:4x4 --out=DIR
Cost:     not run; less than llama31_8b_verifier, since meta-training samples and verifies no attempts.
Result:   the paper reports 54.1 % on MATH-500 for MASS_gold and 43.6 % for the base model; not reproduced here.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    methods = ("base", "ttt", "tt_ss", "solver_grpo", "mass_gold")
    return dataclasses.replace(llama31_8b_verifier.config(), outer="gold", methods=methods)
