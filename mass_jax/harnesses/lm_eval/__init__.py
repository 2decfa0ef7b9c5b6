"""The models for lm-evaluation-harness (Gao et al. 2024), under the name `mass_jax`.

    python -m mass_jax.harnesses.lm_eval --model mass_jax --model_args pretrained=tiny --tasks TASK

takes the arguments of `lm_eval`. In Python, importing `mass_jax.harnesses.lm_eval.model` registers the name.
"""

from mass_jax import lazy

lazy.require(__name__, "lm_eval")
