"""Choice of a memory policy: compiles a run under ever smaller policies and takes the first that fits."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.planning import measure
from mass_jax.planning.chips import GIB, Chip
from mass_jax.planning.phases import Iteration, evaluation_of, meta_step_of
from mass_jax.planning.shapes import shape_of
from mass_jax.runtime.workdir import MONITORING

LIMITS = ("loss_chunk", "example_chunk", "product_chunk", "tasks_at_a_time")  # 0 means all
POLICY = ("remat", "attention", "attention_block", *LIMITS)
"""Settings that a memory policy consists of."""
LOSS_CHUNK = BLOCK = 128
_REMATS = ("none", "dots", "block")
_MAY_DIFFER = ("memory", "methods", *MONITORING)


class Choice(NamedTuple):
    """A memory policy that was chosen.

    Attributes:
        config: settings of the run under the policy, with --memory=off.
        rows: the policies that were compiled, in order; see `measure_policy`.
        limit: bytes per device.
    """

    config: Config
    rows: list[dict[str, Any]]
    limit: float


def ladder(config: Config, devices: int = 1) -> list[Config]:
    """Returns the settings of a run under policies from the fastest to the most frugal one.

    The settings that are given are kept where they take less memory than the policy's.

    Args:
        config: the settings of the run; the first policy is theirs.
        devices: size of the mesh's data axis, which divides the number of problems at a time.

    >>> [flags(config) for config in ladder(Config(remat="block"))[:2]]
    ['--remat=block', '--remat=block --tasks_at_a_time=4']
    """
    length = max(config.max_prompt_tokens, config.max_generator_prompt_tokens)
    length += max(config.max_answer_tokens, config.max_example_tokens)
    tasks, examples = config.tasks_per_step, config.num_examples
    quarter = max(tasks // (4 * devices), 1) * devices
    steps: list[dict[str, Any]] = [
        {},
        {"remat": "dots"},
        {"loss_chunk": LOSS_CHUNK} if length > LOSS_CHUNK else {},
        {"tasks_at_a_time": quarter} if quarter < tasks else {},
        {"tasks_at_a_time": devices} if devices < tasks else {},
        {"remat": "block"},
        {"example_chunk": -(-examples // 3)} | _products(config, -(-examples // 6)),
        {"attention": "blockwise", "attention_block": BLOCK} if length > BLOCK else {},
        {"example_chunk": 1} | _products(config, 1),
    ]
    policies, policy = [], dataclasses.replace(config, memory="off")
    for step in steps:
        policy = tightened(policy, step)
        if policy not in policies:
            policies.append(policy)
    return policies


def _products(config: Config, count: int) -> dict[str, int]:
    """Returns a limit on the examples of a Hessian product, for the adjoints that have one."""
    return {"product_chunk": count} if config.parsed_adjoint[0] in ("weighted", "truncated") else {}


def tightened(config: Config, step: Mapping[str, Any]) -> Config:
    """Returns settings that take no more memory than the given ones, and than those of a policy.

    >>> changed = tightened(Config(remat="block", loss_chunk=64), {"remat": "dots", "loss_chunk": 128})
    >>> changed.remat, changed.loss_chunk
    ('block', 64)
    >>> tightened(Config(attention="kernel"), {"attention": "blockwise", "attention_block": 128}).attention
    'kernel'
    """
    new = dict(step)
    for name in LIMITS:
        if name in new:
            new[name] = min(getattr(config, name) or math.inf, new[name] or math.inf)
            new[name] = 0 if math.isinf(new[name]) else new[name]
    if "remat" in new:
        new["remat"] = max(config.remat, new["remat"], key=_REMATS.index)
    if config.attention == "kernel":
        new |= {"attention": "kernel", "attention_block": config.attention_block}
    elif config.attention != "full":
        new |= {
            "attention": "blockwise" if config.attention == "blockwise" else new.get("attention", "auto"),
            "attention_block": min(config.attention_block, new.get("attention_block", config.attention_block)),
        }
    return dataclasses.replace(config, **new)


def flags(config: Config) -> str:
    """Formats the policy of a run as flags, without those at their defaults.

    >>> flags(Config(remat="dots", example_chunk=4))
    '--remat=dots --example_chunk=4'
    """
    changed = [name for name in POLICY if getattr(config, name) != Config.__dataclass_fields__[name].default]
    return " ".join(f"--{name}={getattr(config, name)}" for name in changed) or "defaults"


def limit_of(config: Config, devices: Sequence[Any], chip: Chip | None = None) -> float:
    """Returns the bytes per device that --memory=auto[:GiB] allows; the smallest of all processes.

    Args:
        config: the settings of the run.
        devices: devices of the mesh. A CPU's share is the physical memory divided by the number of its devices.
        chip: chip to plan for, if the devices are not attached.

    Raises:
        ValueError: the memory of the devices is not known.
    """
    given = config.memory_bytes
    if given is not None and math.isfinite(given):
        return given
    if chip is not None:
        return chip.hbm_bytes
    here = [device for device in devices if device.process_index == jax.process_index()]
    if here[0].platform == "cpu":
        limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(here)
    else:
        limit = min((device.memory_stats() or {}).get("bytes_limit", 0) for device in here)
    if not limit:
        raise ValueError(f"--memory={config.memory}: the device does not report its memory; give it, like auto:24")
    return -runtime.agreed_maximum(-int(limit / 2**20)) * 2.0**20  # in MiB, which fit 32 bits


def measure_policy(iteration: Iteration, limit: float) -> dict[str, Any]:
    """Compiles a meta-step, and if it fits also the adaptation to an evaluation batch.

    Args:
        iteration: the iteration under the policy.
        limit: bytes per device.

    Returns:
        A row of the table: the policy, its largest temporaries and total in bytes, whether they fit, and the seconds
        of compilation.
    """
    chip = Chip(limit, 0.0, 0.0)
    rows = [measure.measure(meta_step_of(iteration), iteration, chip)]
    evaluation = evaluation_of(iteration)
    if rows[0]["fits"] and evaluation is not None:
        rows.append(measure.measure(evaluation, iteration, chip))
    needs = max(rows, key=lambda row: row["total"])
    return {
        "policy": flags(iteration.config),
        "phase": needs["phase"],
        "temporaries": needs["temporaries"],
        "total": needs["total"],
        "fits": all(row["fits"] for row in rows),
        "compile_seconds": round(sum(row["compile_seconds"] for row in rows), 1),
    }


def choose(
    iteration: Iteration, limit: float, measured: Callable[[Iteration, float], dict[str, Any]] = measure_policy
) -> Choice:
    """Compiles the policies of `ladder` in order, and returns the first that fits.

    Args:
        iteration: the iteration to plan.
        limit: bytes per device.
        measured: returns the row of an iteration under a policy, given the limit.

    Raises:
        ValueError: no policy fits; one line with the memory of the smallest one.
    """
    rows: list[dict[str, Any]] = []
    policies = ladder(iteration.config, iteration.mesh.shape["data"])
    for number, config in enumerate(policies, 1):
        logging.info("memory policy %d of %d: compiling %s", number, len(policies), flags(config))
        rows.append(measured(dataclasses.replace(iteration, config=config), limit))
        if rows[-1]["fits"]:
            return Choice(config, rows, limit)
    least = min(row["total"] for row in rows)
    raise ValueError(
        f"--memory={iteration.config.memory}: the smallest policy needs {gib(least)} of {gib(limit)} GiB; "
        f"use --generator=lora, --base_dtype=bfloat16, shorter texts, or more devices"
    )


def gib(size: float) -> str:
    """Formats bytes in GiB with three digits.

    >>> gib(1.5 * 2**30), gib(2**24), gib(480.35 * 2**30)
    ('1.5', '0.0156', '480')
    """
    return f"{size / GIB:.3g}" if size < 1000 * GIB else f"{size / GIB:.0f}"


def table(choice: Choice) -> str:
    """Formats the policies that were compiled as Markdown, in GiB per device."""
    lines = [
        f"Memory policies, in GiB per device of {gib(choice.limit)}, as reported by the compiler:",
        "",
        "| policy | largest program | temporaries | total | compiled in | fits |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in choice.rows:
        temporaries = "" if row["temporaries"] is None else gib(row["temporaries"])
        lines.append(
            f"| {row['policy']} | {row['phase']} | {temporaries} | {gib(row['total'])} | "
            f"{row['compile_seconds']:.0f} s | {'yes' if row['fits'] else 'no'} |"
        )
    return "\n".join([*lines, "", f"chosen: {flags(choice.config)}", ""])


def stored(config: Config, before: Mapping[str, Any] | None) -> Config:
    """Returns the settings of a run under the policy that it was started with; unchanged if it is another run.

    Args:
        config: the settings of the command, with --memory=auto.
        before: settings that the run stored, as a JSON object; None if it is new.
    """
    if before is None or config.memory_bytes is None:
        return config
    try:
        of_run = Config.from_json(json.dumps(before))
    except (ValueError, TypeError):
        return config  # the check of the workdir names the damage or the difference
    found = tightened(dataclasses.replace(config, memory="off"), {name: getattr(of_run, name) for name in POLICY})
    if dataclasses.replace(found, **{name: getattr(of_run, name) for name in _MAY_DIFFER}) != of_run:
        return config
    logging.info("memory policy of the run: %s", flags(found))
    return found


def resolved(config: Config, mesh: Mesh) -> Config:
    """Returns the settings of a run under the policy that --memory=auto chooses, and prints the table.

    Args:
        config: the settings of the run; returned unchanged with --memory=off.
        mesh: mesh of the run.

    Raises:
        ValueError: no policy fits, or the model is not found.
    """
    if config.memory_bytes is None:
        return config
    limit = limit_of(config, list(mesh.devices.flat))
    choice = choose(Iteration(config, shape_of(config.model), mesh), limit)
    if runtime.is_first():
        print(table(choice), flush=True)
    return choice.config
