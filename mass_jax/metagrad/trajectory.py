"""The trajectory of an inner loop outside of the device, as a traced program writes and reads it.

Each run of the program opens records of its own, whose number passes through all calls as a token: reads depend on the
writes before them, and `jax.vmap` over problems stores the records of all of them at once.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from mass_jax.errors import UserError
from mass_jax.metagrad import host_call
from mass_jax.metagrad.store import Records, Store
from mass_jax.metagrad.trees import PyTree

_TOKEN = jax.ShapeDtypeStruct((), jnp.int32)
_numbers = itertools.count(1)
_opened: dict[int, Records] = {}


def opened() -> int:
    """Returns the number of trajectories that are held, for tests and for finding leaks."""
    return len(_opened)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Records of the steps 0, ..., count - 1 of one inner loop.

    Attributes:
        store: where the records are kept.
        count: number of steps.
        like: shapes of one record.
    """

    store: Store
    count: int
    like: PyTree

    @classmethod
    def of(cls, store: Store, count: int, record: PyTree) -> "Trajectory":
        """Returns the trajectory for records shaped like `record`.

        Raises:
            UserError: it does not fit into the store.
        """
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), record)
        made = cls(store, count, like)
        store.check(sum(each.size * each.dtype.itemsize for each in made._raw_shapes()), count)
        return made

    def open(self) -> jax.Array:
        """Opens the records of one run; returns its token."""
        return host_call.call(_Open(self.store, self.count), [_TOKEN])[0]

    def write(self, token: jax.Array, index: jax.Array, record: PyTree) -> jax.Array:
        """Stores the record of a step; returns the token for what comes next."""
        return host_call.call(_write, [_TOKEN], token, index, *jax.tree.leaves(jax.tree.map(_raw, record)))[0]

    def read(self, token: jax.Array, index: Any) -> tuple[jax.Array, PyTree]:
        """Returns the token for what comes next, and the record of a step."""
        token, *leaves = host_call.call(_read, [_TOKEN, *self._raw_shapes()], token, jnp.asarray(index, jnp.int32))
        shapes, structure = jax.tree.flatten(self.like)
        typed = [_typed(leaf, like) for leaf, like in zip(leaves, shapes, strict=True)]
        return token, jax.tree.unflatten(structure, typed)

    def close(self, token: jax.Array) -> None:
        """Frees the records once the token's last read is done."""
        io_callback(_close, None, token)

    def _raw_shapes(self) -> list[Any]:
        """Returns the shapes of a record's arrays, with PRNG keys and 64-bit numbers as integers."""
        return jax.tree.leaves(jax.eval_shape(lambda tree: jax.tree.map(_raw, tree), self.like))


@dataclasses.dataclass(frozen=True)
class _Open:
    """Opens records on the host."""

    store: Store
    count: int

    def __call__(self) -> tuple[np.ndarray]:
        number = next(_numbers)
        _opened[number] = self.store.open(self.count)
        return (np.asarray(number, np.int32),)


def _write(token: np.ndarray, index: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray]:
    """Stores arrays on the host. Batched calls have one token and index for each problem, all equal."""
    number = int(token.flat[0])
    try:
        _opened[number].write(int(index.flat[0]), arrays)
    except OSError as error:
        raise _failed(number, error) from None
    return (np.array(token),)


def _read(token: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reads arrays on the host."""
    number = int(token.flat[0])
    try:
        return np.array(token), *_opened[number].read(int(index.flat[0]))
    except OSError as error:
        raise _failed(number, error) from None


def _close(token: Any) -> None:
    """Frees records on the host; a batched token calls this once for each problem."""
    records = _opened.pop(int(np.asarray(token).flat[0]), None)
    if records is not None:
        records.close()


def _failed(number: int, error: OSError) -> UserError:
    """Frees the records and describes the error."""
    _opened.pop(number).close()
    return UserError(
        f"the trajectory of the inner loop cannot be stored ({error.strerror or error}); free space, or give another "
        "directory, as in --adjoint_store=disk:DIRECTORY"
    )


def _is_key(leaf: Any) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _is_wide(leaf: Any) -> bool:
    """Returns whether a leaf has 64 bits, which JAX would halve in the runtime's threads, where x64 is off."""
    return not _is_key(leaf) and leaf.dtype.itemsize == 8


def _raw(leaf: Any) -> Any:
    """Returns the integers of a PRNG key or of 64-bit numbers; other leaves unchanged."""
    if _is_wide(leaf):
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _typed(leaf: jax.Array, like: Any) -> jax.Array:
    """Inverts `_raw`."""
    if _is_wide(like):
        return jax.lax.bitcast_convert_type(leaf, like.dtype)
    if not _is_key(like):
        return leaf
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), like)  # takes arrays only, not their shapes
    return jax.random.wrap_key_data(leaf, impl=found[0])
