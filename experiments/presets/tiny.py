"""The whole method on the embedded testbed, on a laptop CPU.

Command:  python -m experiments.train --preset=tiny --workdir=runs/tiny
Cost:     6 to 7 minutes on 2 cores of an Intel Xeon at 2.50 GHz, without accelerator or network: two MASS runs of 120
          steps, Solver GRPO, and nine evaluations of 800 problems.
Result:   Base < TT-SS < Solver GRPO < MASS on operators unseen in meta-training; see docs/results/tiny/table1.md.

Settings were chosen on domains of other random seeds than the shipped one (one seed, 400 problems): an inner learning
rate of 0.3 is best for the pretrained model but makes the meta-trained one overshoot (MASS 83 % on unseen operators);
0.2 with a generator rate that decays to 0 and gamma 0.1 does not (89 %).
"""

from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return Config()
