"""Validation of the launcher's flags and of the command that it launches."""

import importlib
import math
import pathlib
import pkgutil
from collections.abc import Sequence

from absl import flags

import experiments
from experiments import settings
from experiments.launching import hosts
from experiments.launching.mounts import check_workdir_mount, mounts
from experiments.launching.names import check_name, check_repository
from experiments.launching.recipes import REMOTE, SUPERVISE, chips_per_node
from experiments.launching.topologies import topology_shape
from mass_jax import runtime
from mass_jax.config import Config, nearest
from mass_jax.runtime import mesh
from mass_jax.runtime.remote.opening import refuse_local

_CHIPS_PER_HOST = {"v5e": 8, "v6e": 8}  # at most, with gcloud; xpk puts 4 chips on a host, as other chips have
BACKENDS_OF = {
    "num_processes": ("local",),
    "port": ("local",),
    "num_nodes": ("slurm", "skypilot"),
    "gpus_per_node": ("slurm",),
    "name": REMOTE,
    "zone": ("gcloud", "xpk"),
    "topology": ("gcloud", "xpk", "skypilot"),
    "num_slices": ("gcloud", "xpk"),
    "cluster": ("xpk",),
    "image": ("xpk",),
    "spot": ("gcloud", "skypilot"),
    "repository": ("gcloud",),
    "storage": ("xpk",),
    "accelerators": ("skypilot",),
    "infra": ("skypilot",),
    "mount": ("gcloud", "skypilot"),
    "stage": REMOTE,
    "restart_on_preemption": REMOTE,
    "max_restarts": ("gcloud", "xpk"),
    "price_per_chip_hour": REMOTE,
    "action": REMOTE,
}


def check_own(values: flags.FlagValues) -> None:
    """Checks the flags of the launcher.

    Raises:
        ValueError: If a flag belongs to another backend, or its value is invalid for the backend. The message never
            contains a credential.
    """
    backend = values.backend
    check_repository(values.repository)  # first, since other messages may show it
    for name, backends in BACKENDS_OF.items():
        if values[name].present and backend not in backends:
            raise ValueError(
                f"--{name}={values[name].value} is for --backend={'|'.join(backends)}, not {backend}; leave it out"
            )
    check_name(backend, values.name)
    if values.action in SUPERVISE and not (backend == "gcloud" and values.restart_on_preemption):
        raise ValueError(f"--action={values.action} needs --backend=gcloud --restart_on_preemption; add them")


def check_forwarded(own: flags.FlagValues, arguments: Sequence[str], program: Sequence[str]) -> None:
    """Checks the launched command as the command itself would; runs and writes nothing.

    The module of the command must define its flags on import or in `define()`.

    Args:
        own: flags of the launcher.
        arguments: arguments after `--`.
        program: last command of the launch, which includes the flags that the launcher adds.

    Raises:
        ValueError: If the module, a flag or a value is unknown, or cannot run on the backend.
    """
    backend, module = own.backend, own.module
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in ("coordinator", "num_processes", "process_id"):
            raise ValueError(f"{argument} is set by the launcher; remove it")
    added = [part for part in program if part.startswith(("--coordinator=", "--num_processes=", "--process_id="))]
    if backend != "local":
        added = ["--coordinator=auto"]
    _define_flags_of(module)
    values = flags.FLAGS
    try:
        rest = values([module, *arguments, *added])
    except flags.Error as error:
        raise ValueError(f"{module}: {error}") from None
    if len(rest) > 1:
        raise ValueError(f"{module}: unexpected argument {rest[1]!r}; settings are given as --name=value")
    config = settings.read() if "preset" in values and "print_config" in values else None
    if "mesh" in values and values.mesh != "auto":
        _check_mesh(own, math.prod(mesh.parse(values.mesh)))
    if "workdir" in values:
        name = _check_workdir(own, arguments, values, config)
        check_workdir_mount(mounts(own.mount, backend), name, values[name].value or "", backend, own.num_nodes)
    if own.stage and not ("model" in values and str(values.model).startswith("/")):
        raise ValueError(f"--stage={own.stage} copies a model to --model; add --model=/mnt/shared/model after --")


def _define_flags_of(module: str) -> None:
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        known = [f"experiments.{entry.name}" for entry in pkgutil.iter_modules(experiments.__path__)]
        raise ValueError(f"--module={module!r} cannot be imported ({error}); {nearest(module, known)}") from None
    if module == "experiments.launch":
        raise ValueError("--module=experiments.launch would launch itself; give another")
    try:
        getattr(found, "define", lambda: None)()
    except flags.Error as error:
        raise ValueError(f"--module={module}: {error}") from None


def _check_mesh(own: flags.FlagValues, devices: int) -> None:
    """Checks that a mesh matches the requested number of chips, if that is known."""
    if own.backend in ("gcloud", "xpk") or (own.backend == "skypilot" and own.topology):
        count = math.prod(topology_shape(own.topology)[1]) * own.num_slices
        count *= 2 if own.topology.startswith("tpu7x") else 1  # JAX counts a TPU7x chip as two devices
        said = f"--topology={own.topology} x {own.num_slices}"
    elif own.backend == "slurm" and own.gpus_per_node:
        count = own.num_nodes * own.gpus_per_node
        said = f"--num_nodes={own.num_nodes} --gpus_per_node={own.gpus_per_node}"
    elif own.backend == "skypilot":
        count = own.num_nodes * chips_per_node(own.accelerators)
        said = f"--num_nodes={own.num_nodes} --accelerators={own.accelerators}"
    else:
        return
    if devices != count:
        raise ValueError(
            f"--mesh={flags.FLAGS.mesh} takes {devices} devices, but {said} has {count}; give sizes that multiply to it"
        )


def _check_workdir(
    own: flags.FlagValues, arguments: Sequence[str], values: flags.FlagValues, config: Config | None
) -> str:
    """Checks --workdir, or --local_workdir if the workdir is in a bucket; returns the name of the directory's flag."""
    workdir, takes_urls = values.workdir, "local_workdir" in values
    local = values.local_workdir if takes_urls else None
    if workdir is None:
        raise ValueError("--workdir is missing after --; give a directory that all processes share")
    if not (takes_urls and runtime.is_url(workdir)):
        refuse_local(workdir, local)
        path = _check_shared(own.backend, arguments, "workdir", workdir)
        if own.backend == "local" and config is not None:
            runtime.check_workdir(path, config.to_json(), replace=True)
        return "workdir"
    runtime.check_url(workdir, here=own.backend == "local")
    if local is not None:
        _check_shared(own.backend, arguments, "local_workdir", local)
    elif not _is_one_host(own):
        raise ValueError(
            f"--workdir={workdir}: several hosts write one checkpoint together, in a local directory; add "
            f"--local_workdir on a disk that all hosts share, like /mnt/shared/mass"
        )
    return "local_workdir"


def _check_shared(backend: str, arguments: Sequence[str], name: str, directory: str) -> pathlib.Path:
    """Checks that a directory can be the same on all hosts, and returns its path."""
    path = runtime.workdir_path(directory, name)
    is_home = hosts.argument(arguments, name).startswith("~")  # differs between hosts
    if backend in ("gcloud", "xpk", "skypilot") and (not path.is_absolute() or is_home):
        raise ValueError(
            f"--{name}={directory}: each host of {backend} would write to its own directory; give an absolute path on "
            f"a disk that all hosts share, like /mnt/shared/mass"
        )
    return path


def _is_one_host(own: flags.FlagValues) -> bool:
    """Returns whether all processes of a launch certainly run on one host."""
    if own.backend == "local":
        return True
    if own.topology:
        chip, sides = topology_shape(own.topology)
        most = _CHIPS_PER_HOST.get(chip, 4) if own.backend == "gcloud" else 4
        return own.num_slices * own.num_nodes == 1 and math.prod(sides) <= most
    return bool(own.num_nodes == 1)
