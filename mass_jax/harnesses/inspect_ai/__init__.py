"""The models for Inspect (UK AI Security Institute), as `mass_jax/MODEL`.

    inspect eval TASK.py --model mass_jax/tiny

An entry point of the package registers the provider.
"""

from mass_jax import lazy

lazy.require(__name__, "inspect_ai")
