"""A real model: SmolLM2-135M-Instruct on seven families of one-step arithmetic (`mass_jax/tasks/families`).

Command:  python -m experiments.fetch_smollm2 --out=models/smollm2
          python -m experiments.train --preset=smollm2 --workdir=runs/smollm2
Cost:     a meta-step takes about a minute and a question with adaptation 4 seconds on 2 cores of an Intel Xeon at
          2.50 GHz, the whole table an evening; float32.
Result:   negative: MASS 1.9 %, Base 21.9 % (105 problems); docs/results/smollm2/ says why.

The prompts show one solved problem, so that nearly every answer has the form (26 of 28 of the base model's parse) and
what is left to gain is arithmetic. The inner rate was chosen on 28 problems of the training side, where the base model
has 14 % right: with right examples SGD at 0.1 gave 21 %, at 0.3 4 %; Adam at 0.003 29 %, and 25 % at 0.005 on the last
8 blocks, which cost half as much.
"""

from mass_jax.config import Config


def config() -> Config:
    return Config(
        task="families",
        model="models/smollm2",
        methods=("base", "few_shot", "majority", "ttt", "ttt_other", "tt_ss", "solver_grpo", "mass", "mass_gold"),
        num_train_problems=400,
        num_eval_problems=105,
        generator="lora",
        generator_lora_rank=8,
        generator_lr=3e-4,
        inner_optimizer="adam",
        inner_lr=0.002,
        max_prompt_tokens=38,
        max_generator_prompt_tokens=70,
        max_example_tokens=21,
        max_answer_tokens=4,
        steps=12,
        warmup_steps=2,
        tasks_per_step=3,
        eval_batch=7,
        checkpoint_every=1,
    )
