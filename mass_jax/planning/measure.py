"""Measurement of phases: memory reported by the compiler, roofline estimates and advice."""

import re
import time
from typing import Any

import jax
from absl import logging

from mass_jax.errors import first_line
from mass_jax.llama import flops
from mass_jax.metagrad.report import compiled_report
from mass_jax.planning.chips import Chip
from mass_jax.planning.phases import Iteration, Phase, bytes_on_chip, meta_gradient, phases
from mass_jax.runtime import rules

Row = dict[str, Any]
META_GRADIENT = "adapt + meta-gradient"
COMPARISONS = {
    "ReverseUnroll with remat": ("reverse", "block"),
    "ReverseUnroll": ("reverse", "none"),
}
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def all_phases(iteration: Iteration, wanted: tuple[str, ...]) -> list[Phase]:
    """Returns the phases of an iteration, and the comparisons with reverse mode.

    Args:
        iteration: meta-iteration to plan.
        wanted: names of the phases to return; empty means all.
    """
    found = phases(iteration)
    for name, (adjoint, remat) in COMPARISONS.items():
        found.append(meta_gradient(iteration.with_remat(remat), name, adjoint))
    return [phase for phase in found if not wanted or phase.name in wanted]


def measure(phase: Phase, iteration: Iteration, chip: Chip | None) -> Row:
    """Compiles one phase and adds up the memory of a chip while it runs.

    Args:
        phase: phase to compile.
        iteration: meta-iteration that it belongs to.
        chip: chip that runs it; None if its memory is unknown.

    Returns:
        A row of the plan: bytes per chip, whether they fit, and the compiler's message if it refuses the program.
    """
    held = held_bytes(iteration)
    began = time.monotonic()
    row: Row = {"phase": phase.name, **held, "hbm": chip.hbm_bytes if chip else None, "refused": None}
    try:
        with rules.use_mesh(iteration.mesh), jax.numpy_dtype_promotion("standard"):
            report = compiled_report(phase.function, *phase.args)
    except Exception as error:  # the compiler's out-of-memory errors have no common class
        needed = refused(str(error), held)
        if needed is None:
            raise
        row |= needed | {"fits": False, "refused": first_line(error)[:200]}
    else:
        resident = held["weights"] + held["optimizer"] + held["scorer"] - bytes_on_chip(phase.held)
        total = report.total_bytes + resident
        fits = None if chip is None else bool(total <= chip.hbm_bytes)
        row |= {"temporaries": report.temp_bytes, "arguments": report.argument_bytes, "total": total, "fits": fits}
    row["compile_seconds"] = round(time.monotonic() - began, 1)
    memory = row["refused"] or f"{row['temporaries'] / 2**30:.2f} GiB of temporaries per chip"
    logging.info("%s: %s (compiled in %.0f s)", phase.name, memory, row["compile_seconds"])
    return row


def held_bytes(iteration: Iteration) -> dict[str, int]:
    """Returns the bytes per chip that every phase holds, and those of key-value caches during sampling."""
    state, base = iteration.state()
    return {
        "weights": bytes_on_chip((base, state.policy)),
        "optimizer": bytes_on_chip((state.policy_opt_state, state.scorer_opt_state)),
        "scorer": bytes_on_chip(state.scorer),
        "caches": cache_bytes(iteration),
    }


def cache_bytes(iteration: Iteration) -> int:
    """Returns the bytes per chip of key-value caches, one per prompt and one per sample, split over the mesh."""
    config, shape, sizes = iteration.config, iteration.shape, iteration.mesh.shape
    slots = config.max_generator_prompt_tokens + config.num_examples * config.max_example_tokens
    each = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    activations = iteration.learner().solver.config.dtype or config.base_dtype
    width = 2 if activations == "bfloat16" else 4
    return config.tasks_per_step * slots * each * width // (sizes["data"] * sizes["tensor"])


def refused(message: str, held: dict[str, int]) -> dict[str, int | None] | None:
    """Parses the compiler's message about a program that does not fit.

    Args:
        message: message of the compiler.
        held: bytes per chip from `held_bytes`.

    Returns:
        Bytes of temporaries and in total; None if the message is about something else.

    >>> held = {"weights": 2**30, "optimizer": 0, "scorer": 0}
    >>> refused("the total memory required for HLO temporaries (2.00G) exceeds available HBM (1.00G)", held)
    {'temporaries': 2147483648, 'total': 3221225472}
    >>> refused("Ran out of memory in memory space hbm. Used 18.60G of 15.75G hbm.", held)
    {'temporaries': None, 'total': 19971597926}
    """
    if found := re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds", message):
        temporaries = int(float(found[1]) * _UNITS[found[2]])
        return {"temporaries": temporaries, "total": temporaries + held["weights"] + held["optimizer"] + held["scorer"]}
    if found := re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm", message):
        return {"temporaries": None, "total": int(float(found[1]) * _UNITS[found[2]])}
    return None


def roofline(name: str, iteration: Iteration, chip: Chip) -> float | None:
    """Estimates the time of a phase at the chip's peak rates, without communication.

    A forward pass takes 2 P operations per token for P parameters. A gradient with rematerialized blocks costs three
    forward passes, a Hessian product six, and a derivative of the losses two (see `metagrad.WeightedMixedMode`).

    Args:
        name: name of the phase.
        iteration: meta-iteration that it belongs to.
        chip: peak rates.

    Returns:
        Seconds; None for a phase without an estimate.
    """
    c, chips = iteration.config, iteration.mesh.size
    row = c.max_prompt_tokens + c.max_answer_tokens
    written = c.max_generator_prompt_tokens + c.max_example_tokens
    solutions = 1 if c.outer == "gold" else c.num_attempts
    mixed = (3 * c.inner_steps + 6 * (c.inner_steps - 1) + 2) * c.num_examples * row + 3 * solutions * row
    tokens = {
        "prefill": c.max_generator_prompt_tokens,
        META_GRADIENT: mixed,
        "outer update": 3 * (c.num_examples * written + solutions * row),
    }
    each = 2.0 * flops.matmul_weights(iteration.shape) * c.tasks_per_step / chips / chip.flops
    if name == "prefill + decode":
        state, base = iteration.state()
        reads = bytes_on_chip((base, state.policy)) * c.max_example_tokens / chip.bandwidth
        return tokens["prefill"] * each + max(reads, c.num_examples * c.max_example_tokens * each)
    return tokens[name] * each if name in tokens else None


def advice(row: Row) -> str:
    """Suggests which settings to change if a phase does not fit."""
    held = row["weights"] + row["optimizer"] + row["scorer"]
    if row["hbm"] and held > row["hbm"] / 2:
        return "weights and optimizer fill the chip: --generator=lora, --base_dtype=bfloat16, or more fsdp and tensor"
    return "temporaries fill the chip: --adjoint=weighted, --remat=block, --loss_chunk=128, fewer tasks, more chips"
