"""The verifier setting at 70 billion parameters, which the paper does not have.

Command:  python -m experiments.train --preset=llama31_70b_verifier --workdir=DIR --mesh=fsdp:16,tensor:4
          on a v5p:4x4x4 (64 chips), through python -m experiments.launch --backend=gcloud|xpk
Plan:     python -m experiments.plan --preset=llama31_70b_verifier --topology=v5p:4x4x4 --out=DIR; see docs/results/plan
Cost:     not run. Planned: 6.9 of 95.7 GiB a chip in adaptation and meta-gradient; by roofline, links left out, a
          step's compute takes some seconds.
Result:   unknown; the settings are those of 8B, untuned.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    return dataclasses.replace(llama31_8b_verifier.config(), model="meta-llama/Llama-3.1-70B-Instruct")
