"""The embedded testbed: the paper's whole loop on a laptop CPU.

Command:  python -m experiments.train --preset=tiny --workdir=runs/tiny
"""

from mass_jax.config import Config


def config() -> Config:
    return Config()
