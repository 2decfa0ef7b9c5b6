"""The paper's iteration with Llama-3.1-8B-Instruct on one GPU of 80 GB, with texts of 2,048 tokens.

Command:  python -m experiments.train --preset=llama31_8b_h100 --workdir=DIR
          with --random_weights to time it without the gated files
Plan:     python -m experiments.plan --preset=llama31_8b_h100 --topology=h100:1 --out=DIR; see docs/results/plan_h100
Cost:     not run. The meta-step compiled for an H100 (jax 0.11.2, no autotuning) takes 38.3 GiB of temporaries and 55.9
          GiB in total, with 15.1 GiB of weights; with --attention=blockwise, 18.5 and 36.1 GiB.
Result:   unknown: not run; llama31_8b_verifier names the paper's.

Settings are those of llama31_8b_verifier, one problem at a time, with gradients of 4 examples and Hessian products of 2
at a time.
"""

import dataclasses

from experiments.presets import llama31_8b_verifier
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(
        llama31_8b_verifier.config(),
        tasks_at_a_time=1,
        example_chunk=4,
        product_chunk=2,
        eval_batch=1,
    )
