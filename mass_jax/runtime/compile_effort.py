"""Effort of XLA's compiler for CPUs: a trade of compilation time against the speed of programs."""

import importlib.metadata
import importlib.util
import os
from typing import Any

from absl import logging

FULL = "full"
FAST = "fast"
FASTEST = "fastest"
EFFORTS = (FULL, FAST, FASTEST)
_LEVEL = "--xla_backend_optimization_level"
_FLAGS = (
    f"{_LEVEL}=1",
    "--xla_backend_extra_options=xla_cpu_disable_slp_vectorizer,xla_cpu_disable_loop_unrolling",
)
_EMITTERS = "--xla_cpu_use_fusion_emitters=false"  # jaxlib 0.12 dropped it, and XLA aborts at a flag it does not know
_ACCELERATORS = ("jax_plugins", "libtpu")


def use_compile_effort(effort: str) -> tuple[str, ...]:
    """Sets the effort of the compiler by adding flags to XLA_FLAGS.

    Call it before JAX starts a backend, which reads the variable once. Processes that this one starts inherit the
    flags. With "fast", LLVM runs at level 1, without the SLP vectorizer and loop unrolling; with "fastest" on
    jaxlib 0.10, fusions skip MLIR too, and decoding slows down. Results differ from those of "full" by rounding.

    Args:
        effort: "full" for XLA's defaults, "fast" or "fastest".

    Returns:
        The flags that were added; none with "full", on other devices than CPUs, and where XLA_FLAGS already sets
        xla_backend_optimization_level.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if effort == FULL or _LEVEL in given:
        return ()
    if not _runs_on_cpu():
        logging.warning("--compile_effort=%s is for CPUs; set JAX_PLATFORMS=cpu to run on one", effort)
        return ()
    has_emitters_flag = importlib.metadata.version("jaxlib").startswith("0.10.")
    added = _FLAGS + ((_EMITTERS,) if effort == FASTEST and has_emitters_flag else ())
    os.environ["XLA_FLAGS"] = " ".join([*given.split(), *added])
    return added


def _runs_on_cpu() -> bool:
    """Returns whether JAX will run on a CPU; starts no backend."""
    import jax  # the launcher reads the settings without JAX

    config: Any = jax.config  # its annotations lack the options
    platforms = config.jax_platforms
    if platforms:
        return platforms == "cpu"
    return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
