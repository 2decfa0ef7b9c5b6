"""Qwen3-0.6B on MATH, for comparison with work on test-time training that uses this model.

Command:  python -m experiments.train --preset=qwen3_06b --workdir=DIR
          on one device
Plan:     python -m experiments.plan --preset=qwen3_06b --topology=v5e:1x1 --out=DIR
Cost:     not run. Counted from shapes: 1.11 GiB for the weights in bfloat16, and 1.05 GiB for adapter, scorer and their
          optimizer states. The plan adds the temporaries.
Result:   unknown: not run, because the model has to be downloaded from the Hugging Face hub.

Settings are those of llama31_8b_verifier with a smaller scorer, and not tuned. Prompts ask the model not to think
(`enable_thinking=False` in its chat template), since an answer has at most 1,024 tokens.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(llama31_8b_verifier.config(), model="Qwen/Qwen3-0.6B", scorer_layers=2, scorer_width=512)
