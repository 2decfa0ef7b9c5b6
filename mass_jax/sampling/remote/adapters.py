"""Adapters for a server: PEFT files in shared memory, each under a name and a path that are used once.

vLLM keeps the weights that it has read under a name, so changed weights need a new name.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import secrets
import tempfile
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from mass_jax.errors import UserError
from mass_jax.llama import lora, peft
from mass_jax.sampling.remote.client import LOG, Client, Refused
from mass_jax.types import Adapter

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM accepts, other than 1."""
_ANSWER = 1 << 16  # bytes of an answer to loading or unloading
_SHARED_MEMORY = "/dev/shm"


def padded(adapter: Adapter) -> Adapter:
    """Pads all ranks of an adapter with zeros to the next of `RANKS`, which does not change its effect.

    Args:
        adapter: a shared adapter.

    Returns:
        The adapter with NumPy leaves of one rank, of scale 1.

    Raises:
        UserError: a rank is above the largest.

    >>> leaves = {"layers": {"mlp": {"up_proj": {"a": np.ones((2, 4, 3)), "b": np.ones((2, 3, 5))}}}}
    >>> jax.tree.map(np.shape, padded(Adapter(leaves)).leaves)
    {'layers': {'mlp': {'up_proj': {'a': (2, 4, 8), 'b': (2, 8, 5)}}}}
    """
    leaves = jax.device_get(lora.folded(lora.checked(adapter, False)).leaves)
    pairs = {(parent, name): pair for parent, inner in leaves["layers"].items() for name, pair in inner.items()}
    largest = max(pair["a"].shape[-1] for pair in pairs.values())
    if largest > RANKS[-1]:
        raise UserError(f"an adapter of rank {largest} exceeds {RANKS[-1]}, vLLM's largest; lower --lora_rank")
    rank = next(rank for rank in RANKS if rank >= largest)
    layers: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for (parent, name), pair in pairs.items():
        more = rank - pair["a"].shape[-1]
        a, b = np.pad(pair["a"], ((0, 0), (0, 0), (0, more))), np.pad(pair["b"], ((0, 0), (0, more), (0, 0)))
        layers.setdefault(parent, {})[name] = {"a": a, "b": b}
    return Adapter({"layers": layers})


@dataclasses.dataclass(frozen=True)
class Loader:
    """Loads adapters into a server.

    Attributes:
        client: client of the server.
        prefix: start of all names, different in each process.
    """

    client: Client
    prefix: str = dataclasses.field(default_factory=lambda: f"mass_jax-{secrets.token_hex(6)}")
    _numbers: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1), repr=False)

    @contextlib.contextmanager
    def loaded(self, adapters: Sequence[Adapter]) -> Iterator[list[str]]:
        """Context in which a server has adapters; they are unloaded and their files removed at its end.

        Args:
            adapters: shared adapters.

        Yields:
            The names of the adapters, which no earlier adapter had.

        Raises:
            UserError: an adapter cannot be written or is refused.
        """
        names: list[str] = []
        with contextlib.ExitStack() as held:
            where = _SHARED_MEMORY if os.path.isdir(_SHARED_MEMORY) else tempfile.gettempdir()
            try:
                directory = held.enter_context(tempfile.TemporaryDirectory(prefix="mass_jax-", dir=where))
                paths = []
                for adapter in adapters:
                    names.append(f"{self.prefix}-{next(self._numbers)}")
                    paths.append(pathlib.Path(directory) / names[-1])
                    peft.save(paths[-1], padded(adapter))
            except OSError as error:
                raise UserError(f"adapters cannot be written to {where} ({error.strerror}); free space there") from None
            for name, path in zip(names, paths, strict=True):
                self._load(name, path)
                held.callback(self._unload, name)
            yield names

    def _load(self, name: str, path: pathlib.Path) -> None:
        try:
            self.client.send("load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, _ANSWER)
        except Refused as error:
            raise error.with_fix(_fix(error, path.parent.parent)) from None

    def _unload(self, name: str) -> None:
        with contextlib.suppress(UserError):  # the server may have ended; its adapters end with it
            self.client.send("unload_lora_adapter", {"lora_name": name}, _ANSWER)


def _fix(error: Refused, where: pathlib.Path) -> str:
    """Returns what makes a server load adapters from a directory; vLLM tells the reason in its message."""
    if any(text in error.reason for text in ("No adapter found", "Permission denied")):
        return f"run the server on this machine as the same user, and in a container with -v {where}:{where}"
    if "not enabled" in error.reason:
        return "start the server with --enable-lora"
    if "rank" in error.reason:
        return "raise the server's --max-lora-rank"
    if error.status in (404, 405):  # the server has no such path
        return "start the server with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"
    return LOG
