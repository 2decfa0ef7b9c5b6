"""Measures how the number format of products and activations changes meta-gradients.

    python -m experiments.benchmarks.number_formats --preset=tiny --workdir=runs/number_formats
    python -m experiments.benchmarks.number_formats --preset=smollm2_gold --model=models/smollm2 --problems=4 \\
        --settings="adam:0.004:auto;adam:0.002:1e-8" --workdir=runs/number_formats

Writes examples for training problems with the pretrained generator in float32, and computes their meta-gradients with
each number format that the settings offer. A cosine near 1 means that a cheaper format keeps the rewards. The outer
loss is that of gold solutions. A setting is OPTIMIZER:RATE[:EPS_ROOT[:STEPS]]; without --settings, the one of the other
flags is measured. WORKDIR gets number_formats.json and number_formats.md after each setting. Rerun the same command to
resume.

Shape suffixes: N problems, M examples per problem.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from experiments import comparison, settings
from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.method.generate import SyntheticExamples
from mass_jax.tasks.base import Problem
from mass_jax.training import estimator_runs, inner_setting, validation
from mass_jax.training.compiling import announced
from mass_jax.training.components import assemble

FLAGS = flags.FLAGS
FLOAT32 = "float32"
BFLOAT16 = "--base_dtype=bfloat16"
FORMATS: dict[str, dict[str, Any]] = {
    FLOAT32: {
        "half_products": False,
        "base_dtype": "float32",
        "compute_dtype": "auto",
        "adapter_product_dtype": "float32",
    },
    "--half_products --base_dtype=bfloat16": {"half_products": True, "base_dtype": "bfloat16"},
    BFLOAT16: {"base_dtype": "bfloat16"},
    "--base_dtype=bfloat16 --adapter_product_dtype=bfloat16": {
        "base_dtype": "bfloat16",
        "adapter_product_dtype": "bfloat16",
    },
}
"""Settings of each format by name; what a format does not name is that of float32."""
Cosines = dict[str, list[float | None]]
"""Cosines of each problem by the format they refer to; None where a problem has fewer than two rewards."""


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(compare)


def compare(stop: runtime.Stop) -> None:
    """Checks the flags, measures the settings that are not in the workdir yet, and writes the results."""
    with contextlib.ExitStack() as held:
        try:
            config = settings.read()
            comparison.check_marginal(config)
            texts = comparison.read_settings(config)
            opened = settings.workdir_and_mesh(held, config, "runs/number_formats", stop)
            if opened is None:
                return
            workdir, mesh = opened
            reference = held.enter_context(contextlib.closing(assemble(formatted(config, FLOAT32), mesh)))
            chosen = [
                inner_setting.parse_setting(text, config, lambda: comparison.auto_of(reference)) for text in texts
            ]
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
        chosen = chosen or [inner_setting.InnerSetting.of(config, reference.rollouts.loop)]
        problems = reference.problems(FLAGS.seed).train[: FLAGS.problems]
        header = header_of(config, len(problems))
        found = comparison.read(workdir / "number_formats.json", header, _parse)
        wanted = [setting for setting in chosen if setting.label not in found]
        if wanted:
            key = jax.random.fold_in(jax.random.key(FLAGS.seed), 5)
            keys_N = jax.random.split(jax.random.fold_in(key, 1), len(problems))
            synthetic, _ = reference.rollouts.write_examples(
                reference.pretrained(), problems, keys_N, config.num_examples
            )
        for setting in wanted:
            found[setting.label] = cosines(measure(config, mesh, problems, synthetic, setting, key, stop))
            write(workdir, header, found)
        write(workdir, header, found)
        if runtime.is_first():
            print((workdir / "number_formats.md").read_text(encoding="utf-8"))


def formatted(config: Config, name: str) -> Config:
    """Returns settings with the number format of this name in `FORMATS`."""
    return dataclasses.replace(config, **FORMATS[FLOAT32] | FORMATS[name])


def measure(
    config: Config,
    mesh: Any,
    problems: Sequence[Problem],
    synthetic: SyntheticExamples,
    setting: inner_setting.InnerSetting,
    key: jax.Array,
    stop: runtime.Stop,
) -> dict[str, np.ndarray]:
    """Returns the rewards of the same examples in every format, float64 [N, M], with 0 for rejected examples."""
    rewards: dict[str, np.ndarray] = {}
    count = len(problems)
    for name in FORMATS:
        stop.poll()
        # A number, so that no format measures an eps_root of its own.
        chosen = dataclasses.replace(formatted(config, name), inner_eps_root=repr(setting.eps_root))
        with contextlib.closing(assemble(chosen, mesh)) as components:
            rollouts, weights = components.rollouts, components.pretrained()
            drawn = validation.drawn(rollouts, weights, problems, synthetic, None, key, FLAGS.score)
            solutions = rollouts.dialogue.gold(problems).text
            tasks = validation.tasks_of(rollouts, weights, drawn, solutions, np.ones((count, 1), np.float32))
            hyper = np.float32(setting.rate), np.float32(setting.eps_root)
            with announced(f"meta-gradients of {setting.label}, {name}"):
                rewards_NM = estimator_runs.rewards_jit(
                    validation.adaptation_of(rollouts, setting), weights, hyper, tasks
                )
            rewards[name] = np.asarray(rollouts.feed.get(rewards_NM, count), np.float64) * drawn.kept_NM
        logging.info("measured %s, %s", setting.label, name)
    return rewards


def cosines(rewards: Mapping[str, np.ndarray]) -> dict[str, Cosines]:
    """Returns the cosines of rewards to those in float32, and with bfloat16 activations also to those.

    Args:
        rewards: rewards by format, [N, M].

    >>> ones = np.ones((1, 2))
    >>> found = cosines({name: ones for name in FORMATS})
    >>> found["--half_products --base_dtype=bfloat16"]
    {'float32': [1.0]}
    """
    found: dict[str, Cosines] = {}
    for name, rewards_NM in rewards.items():
        others = [FLOAT32] if name != FLOAT32 else []
        if FORMATS[name].get("adapter_product_dtype") == "bfloat16":
            others.append(BFLOAT16)
        if others:
            found[name] = {other: _cosines(rewards_NM, rewards[other]) for other in others}
    return found


def _cosines(first_NM: np.ndarray, second_NM: np.ndarray) -> list[float | None]:
    """Returns the cosine of each problem's rewards; None where fewer than two are not 0, so that it would be 1."""
    norms_N = np.linalg.norm(first_NM, axis=-1) * np.linalg.norm(second_NM, axis=-1)
    products_N = (first_NM * second_NM).sum(-1)
    known_N = (norms_N > 0) & (np.count_nonzero(second_NM, axis=-1) > 1)
    return [
        float(round(product / norm, 6)) if known else None
        for product, norm, known in zip(products_N, norms_N, known_N, strict=True)
    ]


def header_of(config: Config, problems: int) -> dict[str, Any]:
    """Returns what a measurement depends on besides the inner optimizer and the format."""
    free = {"inner_optimizer", "inner_lr", "inner_eps_root", "inner_steps", "outer", *FORMATS[FLOAT32]}
    others = {name: value for name, value in json.loads(config.to_json()).items() if name not in free}
    return {
        "model": config.model,
        "task": config.task,
        "problems": problems,
        "examples": config.num_examples,
        "score": FLAGS.score,
        "seed": FLAGS.seed,
        "device": jax.devices()[0].device_kind,
        "config": others,
    }


def write(workdir: pathlib.Path, header: Mapping[str, Any], found: Mapping[str, dict[str, Cosines]]) -> None:
    """Writes number_formats.json and number_formats.md."""
    if not runtime.is_first():
        return
    comparison.write(workdir / "number_formats.json", header, found)
    runtime.write_atomically(workdir / "number_formats.md", table(header, found))


def table(header: Mapping[str, Any], found: Mapping[str, dict[str, Cosines]]) -> str:
    """Returns a Markdown table with the mean and the least cosine over problems."""
    lines = [
        f"Cosines of the rewards of {header['problems']} x {header['examples']} examples, {header['model']}, mean and "
        f"least over problems. Measured on: {header['device']}.",
        "",
        f"| inner optimizer | number format | to {FLOAT32} | to `{BFLOAT16}` |",
        "|---|---|---:|---:|",
    ]
    for label, by_format in found.items():
        for name, values in by_format.items():
            lines.append(f"| {label} | `{name}` | {_shown(values[FLOAT32])} | {_shown(values.get(BFLOAT16, []))} |")
    return "\n".join(lines) + "\n"


def _shown(values_N: Sequence[float | None]) -> str:
    """Formats the mean and the least cosine; empty without values.

    >>> _shown([1.0, None, 0.5]), _shown([None])
    ('0.75000, 0.50000', '')
    """
    known = [value for value in values_N if value is not None]
    return f"{np.mean(known):.5f}, {min(known):.5f}" if known else ""


def _parse(rows: dict[str, Cosines]) -> dict[str, Cosines]:
    """Reads one setting of number_formats.json; raises a KeyError or TypeError if it is damaged."""
    return {name: {other: [*values] for other, values in rows[name].items()} for name in FORMATS if name != FLOAT32}


if __name__ == "__main__":
    comparison.define()
    flags.adopt_module_key_flags(comparison)  # list them in --help
    settings.run(main)
