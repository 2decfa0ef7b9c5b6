"""Sampling from a Llama: each prompt is encoded once and shared by its samples, with one adapter per prompt.

`sample` works on arrays inside jitted code; `Engine` serves requests of any size from the host. Both return a
log-probability for every generated token.
"""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax.llama.decode import unstack
    from mass_jax.sampling import adapters, choose, conversion, engine, loop, sampler
    from mass_jax.sampling.choose import Settings
    from mass_jax.sampling.engine import Engine
    from mass_jax.sampling.loop import Samples, sample
    from mass_jax.sampling.sampler import Continuation, HoldsWeights, Sampler

__all__ = [
    "Continuation",
    "Engine",
    "HoldsWeights",
    "Sampler",
    "Samples",
    "Settings",
    "adapters",
    "choose",
    "conversion",
    "engine",
    "loop",
    "sample",
    "sampler",
    "unstack",
]
_NAMES = {
    "Continuation": "sampler",
    "Engine": "engine",
    "HoldsWeights": "sampler",
    "Sampler": "sampler",
    "Samples": "loop",
    "Settings": "choose",
    "sample": "loop",
    "unstack": "loop",
}
_SUBMODULES = ("adapters", "choose", "conversion", "engine", "loop", "sampler")
__getattr__, __dir__, _ = lazy.attach(__name__, _NAMES | {name: name for name in _SUBMODULES})
