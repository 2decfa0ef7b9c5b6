"""The embedded testbed: the paper's whole loop on a laptop CPU.

Command:  python -m experiments.train --preset=tiny --workdir=runs/tiny
Cost:     two MASS runs of 120 steps, Solver GRPO, nine evaluations of 800 problems; no accelerator, no network;
          6 to 7 minutes on 2 cores of an Intel Xeon at 2.50 GHz.
Result:   Base < TT-SS < Solver GRPO < MASS on operators unseen in meta-training; see docs/results/tiny/table1.md.

Settings were chosen on generated worlds other than the shipped one. What was found there (one seed, 400 problems):
an inner rate of 0.3 is best for the pretrained model but makes the meta-trained one overshoot (MASS 83 % on unseen
operators), 0.2 with a rate falling to 0 and gamma 0.1 does not (89 %).
"""

from mass_jax.config import Config


def config() -> Config:
    return Config()
