"""Names for trees of arrays in public signatures.

Static checkers see `Any`, since a pytree has no closed type; the names tell a reader which tree is meant.
"""

from typing import Any, TypeAlias

PyTree: TypeAlias = Any
"""Any pytree whose leaves are arrays."""

Params: TypeAlias = Any
"""Parameters of a model, as Flax nests them."""

Adapter: TypeAlias = Any
"""LoRA matrices {"layers": {...: {"a": [L, in, R], "b": [L, R, out]}}}; with a leading axis where there is one per task."""
