"""Qwen2.5-0.5B-Instruct on MATH, for comparison with work on test-time training that uses this model.

Command:  python -m experiments.train --preset=qwen25_05b --workdir=DIR
          on one device
Plan:     python -m experiments.plan --preset=qwen25_05b --topology=v5e:1x1 --out=DIR
Cost:     not run. Counted from shapes: 0.92 GiB for the weights in bfloat16, and 1.04 GiB for adapter, scorer and their
          optimizer states. The plan adds the temporaries.
Result:   unknown: not run, because the model has to be downloaded from the Hugging Face hub.

Settings are those of llama31_8b_verifier with a smaller scorer, and not tuned.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(
        llama31_8b_verifier.config(), model="Qwen/Qwen2.5-0.5B-Instruct", scorer_layers=2, scorer_width=512
    )
