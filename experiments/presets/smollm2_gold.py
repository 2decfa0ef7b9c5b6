"""MASS_gold on SmolLM2-135M-Instruct: meta-training teaches a pretrained model to write correct examples.

Command:  python -m experiments.tools.fetch_smollm2 --out=models/smollm2
          python -m experiments.train --preset=smollm2_gold --on_weak_signal=ignore --workdir=runs/smollm2_gold
Cost:     1.6 minutes of meta-training per seed, compilation included, and 0.02 seconds per question with adaptation, on
          an NVIDIA H100 that three seeds shared. On a Xeon about 18 CPU seconds per task and step, which extrapolates
          to 5 CPU hours per seed.
Result:   on three families seen in meta-training MASS_gold 59.3 %, TT-SS 42.7 %, few-shot 35.0 %, Base 22.7 %; on two
          others 8.7 %, 0.3 %, 10.7 %, 0.0 % (300 problems each, three seeds), for 229, 133, 43 and 9 GFLOP per
          question. Fine-tuning on the same gold solutions (--methods=...,solver_sft) reaches 72.0 and 5.0 % without
          examples, for 5.5 minutes of training on a CPU and 9 GFLOP; docs/results/smollm2_gold/. With
          --outer=verifier --dynamic_sampling=2 MASS reaches 57.7 and 6.0 % for 3.5 minutes of training and 226 GFLOP
          per question, Solver GRPO 60.3 and 4.0 % for 9 seconds and 8.7 GFLOP (three seeds; MASS drew 32,512 samples
          per seed, Solver GRPO 34,560); docs/results/smollm2_verifier/.

The inner optimizer was chosen on training problems: with correct examples, Adam at 0.004 with eps_root=auto solves 47 %
of additions and 75 % of the times table (base 22 and 38 %), and its rewards have a rank correlation of 0.97 with
leaving an example out. Rejected texts rank below all others, and a KL term keeps the generator near its start. The
generator's adapter is in the last 10 of 30 blocks.
"""

import dataclasses

from experiments.presets import smollm2
from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return dataclasses.replace(
        smollm2.config(),
        families_train=("addition", "times table", "wide multiplication"),
        families_test=("subtraction", "words"),
        methods=("base", "few_shot", "tt_ss", "mass_gold"),
        seeds=(0, 1, 2),
        num_train_problems=280,
        num_eval_problems=100,
        inner_lr=0.004,
        inner_eps_root="auto",
        half_products=True,
        base_dtype="bfloat16",
        tasks_at_a_time=10,
        num_examples=6,
        num_attempts=6,
        max_generator_prompt_tokens=109,
        max_target_tokens=6,
        generator_lora_blocks=10,
        generator_lr=1e-3,
        kl_coef=0.05,
        steps=60,
        warmup_steps=2,
        tasks_per_step=16,
        eval_batch=50,
        checkpoint_every=10,
    )
