"""Estimates memory per chip before you rent one: compiles every phase of a run for a TPU topology or a GPU.

    python -m experiments.plan --preset=llama31_8b_verifier --topology=v5e:4x4 --out=runs/plan

Needs the TPU compiler (`pip install "mass_jax[plan]"`) but no TPU, or for --topology=h100:1 JAX's CUDA plugin
(`pip install "mass_jax[plan-cuda]"`) but no GPU; --topology=local plans for this machine's devices. The compiled
programs are those that a run executes. The phase "meta-step" is the program of training itself: it contains scoring,
adaptation, meta-gradient and update, which are also compiled separately. Two phases after it compare with reverse mode.
A phase takes some minutes to compile; OUT/plan.json is written after each, and rerunning the same command resumes. OUT
finally contains plan.json and plan.md, and the figure plan.png (also as SVG). To compare plans of the same work on
different numbers of chips, in chips.md and chips.png:

    python -m experiments.plan --join=runs/plan8,runs/plan16 --phases="adapt + meta-gradient" --out=runs/plan
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
from absl import flags, logging

from experiments import settings
from experiments.path_flags import DEFINE_path, DEFINE_path_list
from mass_jax import runtime
from mass_jax.config import Config, nearest
from mass_jax.errors import UserError
from mass_jax.planning import chips, measure, plan_page, policies, shapes
from mass_jax.planning.chips import Chip
from mass_jax.planning.phases import Iteration
from mass_jax.runtime import rules
from mass_jax.runtime.mesh import describe, make_mesh
from mass_jax.training.components import check_tasks

FLAGS = flags.FLAGS


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(join if FLAGS.join else plan)


def plan(stop: runtime.Stop) -> None:
    """Compiles the phases that are not planned yet and writes the plan."""
    try:
        config = settings.read()
        if settings.printed(config):
            return
        if FLAGS.out is None:
            raise ValueError("--out is missing; give a directory, like --out=runs/plan")
        if FLAGS.topology != "local":
            jax.config.update("jax_platforms", "cpu")  # otherwise JAX would look for a TPU, since libtpu is installed
        iteration, out = describe_iteration(config), pathlib.Path(FLAGS.out)
        iteration, chip = with_policy(iteration, chips.chip_of(FLAGS.topology), out)
        header = describe_plan(iteration)
        rows = read_rows(out / "plan.json", header)
        wanted = measure.all_phases(iteration, tuple(FLAGS.phases))
        names = {phase.name for phase in wanted}
        if unknown := [name for name in FLAGS.phases if name not in names]:
            every = [phase.name for phase in measure.all_phases(iteration, ())]
            raise ValueError(f"--phases={unknown[0]!r} is unknown; {nearest(unknown[0], every)}")
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(str(error)) from error
    for number, phase in enumerate(wanted, 1):
        stop.poll()
        if phase.name in [row["phase"] for row in rows]:
            logging.info("phase %d of %d: %s is already in plan.json", number, len(wanted), phase.name)
            continue
        logging.info("phase %d of %d: compiling %s", number, len(wanted), phase.name)
        row = measure.measure(phase, iteration, chip)
        peaks = chip if chip is not None and chip.flops else None
        row["roofline_seconds"] = measure.roofline(phase.name, iteration, peaks) if peaks else None
        row["advice"] = measure.advice(row) if row["fits"] is False else None
        rows.append(row)
        runtime.write_atomically(out / "plan.json", json.dumps(header | {"rows": rows}, indent=1) + "\n")
    text = plan_page.table(header, rows)
    runtime.write_atomically(out / "plan.md", text.rstrip() + "\n")
    plan_page.figure(header, rows, out / "plan.png")
    print(text)
    logging.info("plan: %s", out)


def join(_: runtime.Stop) -> None:
    """Compares finished plans in one phase."""
    try:
        if FLAGS.out is None:
            raise ValueError("--out is missing; give a directory, like --out=runs/plan")
        if absent := [path for path in FLAGS.join if not (pathlib.Path(path) / "plan.json").exists()]:
            raise ValueError(f"--join={absent[0]} has no plan.json; give directories of finished plans")
        plans = [read_plan(pathlib.Path(path) / "plan.json") for path in dict.fromkeys(FLAGS.join)]
        rows = plan_page.joined(plans, FLAGS.phases[0] if FLAGS.phases else measure.META_GRADIENT)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    out, text = pathlib.Path(FLAGS.out), plan_page.chips_table(rows)
    out.mkdir(parents=True, exist_ok=True)
    runtime.write_atomically(out / "chips.md", text)
    plan_page.chips_figure(rows, out / "chips.png")
    print(text)


def describe_iteration(config: Config) -> Iteration:
    """Returns the iteration to plan.

    Raises:
        ValueError: If the mesh does not divide the model or the problems evenly.
    """
    mesh = make_mesh(FLAGS.mesh, chips.devices_of(FLAGS.topology, FLAGS.num_slices))
    shape = shapes.shape_of(config.model)
    rules.check_layout(mesh, shape)
    check_tasks(config, mesh)
    return Iteration(config, shape, mesh)


def with_policy(iteration: Iteration, chip: Chip | None, out: pathlib.Path) -> tuple[Iteration, Chip | None]:
    """Returns the iteration under the policy of --memory, which a finished plan stores, and the chip with its limit.

    Prints the policies that were compiled, and writes them to OUT/policies.md.

    Raises:
        ValueError: If no policy fits, or plan.json is damaged.
    """
    config, path = iteration.config, out / "plan.json"
    if config.memory_bytes is None:
        return iteration, chip
    limit = policies.limit_of(config, list(iteration.mesh.devices.flat), chip)
    chip = Chip(limit, 0.0, 0.0) if chip is None else chip._replace(hbm_bytes=limit)
    config = policies.stored(config, read_plan(path).get("settings") if path.exists() else None)
    if config.memory_bytes is not None:
        choice = policies.choose(iteration, limit)
        config, text = choice.config, policies.table(choice)
        print(text, flush=True)
        runtime.write_atomically(out / "policies.md", text)
    return dataclasses.replace(iteration, config=config), chip


def describe_plan(iteration: Iteration) -> dict[str, Any]:
    """Returns the header of a plan, which identifies it; a directory holds one plan."""
    config = iteration.config
    return {
        "preset": FLAGS.preset,
        "topology": FLAGS.topology,
        "num_slices": FLAGS.num_slices,
        "chips": iteration.mesh.size,
        "mesh": describe(iteration.mesh),
        "jax": jax.__version__,
        "model": config.model,
        "tasks": config.tasks_per_step,
        "m": config.num_examples,
        "k": config.num_attempts,
        "tokens": config.max_prompt_tokens + config.max_answer_tokens,
        "K": config.inner_steps,
        "rank": config.lora_rank,
        "dtype": config.base_dtype,
        "adjoint": config.adjoint,
        "settings": json.loads(config.to_json()),
    }


def read_plan(path: pathlib.Path) -> dict[str, Any]:
    """Reads a plan.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"rows": found.pop("rows"), **found}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; remove it and plan again") from None


def read_rows(path: pathlib.Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the finished rows of the same plan; entries that an older header lacks are not compared.

    Raises:
        ValueError: If the file contains another plan.
    """
    if not path.exists():
        return []
    found = read_plan(path)
    for name, value in _flat(header).items():
        if (before := _flat(found).get(name, value)) != value:
            raise ValueError(f"{path} is a plan with {name}={before!r}, not {value!r}; give another --out")
    return found["rows"]


def _flat(header: dict[str, Any]) -> dict[str, Any]:
    """Merges the settings of a header into its entries, which come first."""
    return {name: value for name, value in header.items() if name != "settings"} | header.get("settings", {})


def define() -> None:
    """Defines this command's flags; not on import, since commands share flag names."""
    settings.define()
    settings.define_topology()
    flags.adopt_module_key_flags(settings)  # list them in --help
    flags.DEFINE_list("phases", [], "Names of the phases to compile, separated by commas; empty means all.")
    DEFINE_path_list("join", "Directories of finished plans to compare in one phase; compiles nothing.")
    DEFINE_path("out", None, "Directory of the plan; rerun with the same directory to resume.")


if __name__ == "__main__":
    define()
    settings.run(main)
