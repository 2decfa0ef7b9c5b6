"""Main setting of the paper: Llama-3.1-8B-Instruct on MATH, with the outer loss from 6 verified attempts.

Command:  python -m experiments.train --preset=llama31_8b_verifier --workdir=DIR --mesh=fsdp:4,tensor:4
          on a v5e:4x4 (16 chips), through python -m experiments.launch --backend=gcloud|xpk
Plan:     python -m experiments.plan --preset=llama31_8b_verifier --topology=v5e:4x4 --out=DIR; see docs/results/plan
Cost:     not run. Roofline estimate without communication: the compute of a step takes a few seconds; sampling will
          dominate a real step.
Result:   the paper reports 59.0 % on MATH-500 for MASS and 43.6 % for the base model; not reproduced here.

From the paper: m = 12 (6 at test time), k = 6, K = 2, about 100 steps with 20 warm-up steps, and 1,000 problems. Not in
the paper, and not tuned: inner optimizer and learning rate, LoRA rank and targets, scorer size, gamma and lengths.
"""

from mass_jax.config import Config


def config() -> Config:
    """Returns the settings."""
    return Config(
        model="meta-llama/Llama-3.1-8B-Instruct",
        task="math",
        outer="verifier",
        methods=("base", "ttt", "tt_ss", "solver_grpo", "mass"),
        steps=100,
        warmup_steps=20,
        tasks_per_step=1,
        num_train_problems=1000,
        num_eval_problems=500,
        base_dtype="bfloat16",
        remat="block",
        loss_chunk=128,
        generator="lora",
        generator_lora_rank=16,
        generator_lr=1e-4,
        lora_rank=16,
        lora_alpha=16.0,
        inner_lr=0.1,
        scorer_layers=4,
        scorer_width=1024,
        scorer_lr=1e-4,
        max_prompt_tokens=1024,
        max_generator_prompt_tokens=1024,
        max_example_tokens=1024,
        max_answer_tokens=1024,
        eval_batch=4,
        checkpoint_every=5,
    )
