"""Guards of test-time updates: gates on examples, bounds on updates, the regression suite and the policy file."""

from typing import TYPE_CHECKING

from mass_jax import lazy

if TYPE_CHECKING:
    from mass_jax.serving.guards import bounds, gates, policy, policy_file, regression

__all__ = ["bounds", "gates", "policy", "policy_file", "regression"]
__getattr__, __dir__, _ = lazy.attach(
    __name__, {name: name for name in ("bounds", "gates", "policy", "policy_file", "regression")}
)
