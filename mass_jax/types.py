"""Type aliases for trees of arrays in public signatures.

They are `Any` to a static type checker, since pytrees have no closed type, and tell readers which tree is meant.
"""

from typing import Any, TypeAlias

PyTree: TypeAlias = Any
"""A pytree with arrays as leaves."""

Params: TypeAlias = Any
"""Parameters of a Flax model, as nested dictionaries."""

Adapter: TypeAlias = Any
"""LoRA adapter {"layers": {...: {"a": [L, in, R], "b": [L, R, out]}}}; a batched one has a leading axis of tasks."""
