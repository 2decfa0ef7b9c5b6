"""MASS with verified attempts at 70 billion parameters, a size that is not in the paper.

Command:  python -m experiments.train --preset=llama31_70b_verifier --workdir=DIR --mesh=fsdp:16,tensor:4
          on a v5p:4x4x4 (64 chips), through python -m experiments.launch --backend=gcloud|xpk
Plan:     python -m experiments.plan --preset=llama31_70b_verifier --topology=v5p:4x4x4 --out=DIR; see docs/results/plan
Cost:     not run. Plan: 6.9 of 95.7 GiB per chip for adaptation and meta-gradient. Roofline estimate without
          communication: the compute of a step takes a few seconds.
Result:   unknown; settings are those of the 8B preset, not tuned.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(llama31_8b_verifier.config(), model="meta-llama/Llama-3.1-70B-Instruct")
