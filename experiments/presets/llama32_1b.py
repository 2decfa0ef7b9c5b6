"""Llama-3.2-1B-Instruct on MATH, for comparison with work on test-time training that uses this model.

Command:  python -m experiments.train --preset=llama32_1b --workdir=DIR
          on one device
Plan:     python -m experiments.plan --preset=llama32_1b --topology=v5e:1x1 --out=DIR
Cost:     not run. Counted from shapes: 2.30 GiB for the weights in bfloat16, and 0.93 GiB for adapter, scorer and their
          optimizer states. The plan adds the temporaries.
Result:   unknown: not run, because the model has to be downloaded from the Hugging Face hub, with access to its
          gated files.

Settings are those of llama31_8b_verifier with a smaller scorer, and not tuned.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(
        llama31_8b_verifier.config(), model="meta-llama/Llama-3.2-1B-Instruct", scorer_layers=2, scorer_width=512
    )
