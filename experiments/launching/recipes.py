"""Recipes of the remote backends: shell scripts that create, stage, start, watch, stop and delete a run.

Every value is quoted for the shell unless the template says otherwise, so names, paths and arguments may contain
anything printable. Values of environment variables are not part of a recipe.
"""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2

from experiments.launching import hosts, prices
from experiments.launching.names import check_name, check_repository
from experiments.launching.topologies import accelerator

REMOTE = ("gcloud", "xpk", "slurm", "skypilot")
_WATCH = ("launch", "create", "stage", "start", "status", "logs", "stop", "delete", "cost")
SUPERVISE = ("supervise", "supervisor")
ACTIONS = (*_WATCH, *SUPERVISE)
_RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5e": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}


_DEFAULTS: dict[str, Any] = {
    "accelerators": "",
    "infra": "",
    "max_restarts": 10,
    "mounts": (),
    "num_nodes": 1,
    "num_slices": 1,
    "price_per_chip_hour": None,
    "restart_on_preemption": False,
    "spot": False,
    "stage": "",
    "storage": (),
    "topology": "",
    "variables": (),
    "zone": "",
}


class _Raw(str):
    """Text that enters a recipe without quotes."""


def _quoted(value: Any) -> Any:
    return value if isinstance(value, _Raw | int | jinja2.Undefined) else shlex.quote(str(value))


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("experiments.launching"),
    undefined=jinja2.StrictUndefined,
    finalize=_quoted,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["raw"] = _TEMPLATES.filters["comment"] = _Raw


def render(backend: str, module: str, arguments: Sequence[str], **given: Any) -> str:
    """Returns the recipe of a launch, a script for bash.

    Args:
        backend: one of `REMOTE`.
        module: module to run.
        arguments: its command line.
        **given: values of the launcher's flags, with `mounts` and `variables` (names only).

    Raises:
        ValueError: If a flag that the backend needs is missing, or a value cannot be written into a script.

    >>> given = {"num_nodes": 2, "gpus_per_node": 8, "name": "mass"}
    >>> "sbatch --job-name=mass --nodes=2" in render("slurm", "experiments.train", ["--preset=tiny"], **given)
    True
    """
    given = _DEFAULTS | given
    check_repository(given.get("repository", ""))
    texts = [value for value in given.values() if isinstance(value, str)]
    _check_printable([module, *arguments, *texts, *given["storage"], *(part for m in given["mounts"] for part in m)])
    program = ["python", "-m", module, *arguments]
    build = {"slurm": _slurm, "gcloud": _gcloud, "xpk": _xpk, "skypilot": _skypilot}[backend]
    given["model"] = hosts.argument(arguments, "model")
    check_name(backend, given.get("name", ""))
    context = build(program, given)
    watched = backend == "gcloud" and given["restart_on_preemption"]
    actions = [*_WATCH, *(SUPERVISE if watched else ())]
    common = {"backend": backend, "name": given["name"], "variables": given["variables"], "actions": actions}
    return _TEMPLATES.get_template(f"{backend}.sh.jinja").render(common | context)


def _check_printable(texts: Sequence[str]) -> None:
    for text in texts:
        if not text.isprintable():
            raise ValueError(f"{text!r} has characters that are not printable; remove them")


def _slurm(program: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Submits one process per GPU, since JAX assigns each Slurm process the GPU of its local id."""
    _need("slurm", given, "name")
    gpus, directory = given["gpus_per_node"], f".mass_jax/{_file_name(given['name'])}"
    tasks = [f"--ntasks-per-node={max(1, gpus)}"] + ([f"--gpus-per-node={gpus}"] if gpus else [])
    whole = ["--exclusive", "--mem=0", "--signal=TERM@120", "--requeue"]  # two minutes to save
    log = [f"--output={directory}/log", "--open-mode=append"]
    return {
        "directory": directory,
        "options": [f"--job-name={given['name']}", f"--nodes={given['num_nodes']}", *tasks, *whole, *log],
        "run": shlex.join(["srun", "--kill-on-bad-exit=1", *program, "--coordinator=auto"]),
        "restart": given["restart_on_preemption"],
        "stage": hosts.stage(given["stage"], given["model"]),
        "cost": prices.cost(given["num_nodes"] * max(1, gpus), given["price_per_chip_hour"]),
    }


def _gcloud(program: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Creates a TPU, installs the project on each of its hosts and starts the same command on all of them."""
    _need("gcloud", given, "name", "zone", "topology", "repository")
    if given["num_slices"] != 1:
        raise ValueError(f"--num_slices={given['num_slices']}: gcloud starts one slice; use --backend=xpk")
    chip = given["topology"].partition(":")[0]
    if chip not in _RUNTIMES:
        raise ValueError(f"--topology={given['topology']}: gcloud has no TPU VM of {chip}; use --backend=xpk")
    directory = f"mass_launch/{given['name']}"
    shared = [mount for mount in given["mounts"] if not mount.is_bucket]
    return {
        "zone": given["zone"],
        "accelerator": accelerator(given["topology"]),
        "runtime": _RUNTIMES[chip],
        "spot": given["spot"],
        "queued": given["restart_on_preemption"],
        "max_restarts": given["max_restarts"],
        "directory": directory,
        "environment": bool(given["variables"]),
        "repository": given["repository"],
        "extras": hosts.extras("tpu", program),
        "shares": shared,
        "buckets": [mount for mount in given["mounts"] if mount.is_bucket],
        "program": shlex.join([".venv/bin/python", *program[1:], "--coordinator=auto"]),
        "stage": hosts.stage(given["stage"], given["model"], "~/mass_jax/.venv/bin/hf"),
        "stage_worker": "0" if any(mount.holds(given["model"]) for mount in shared) else "all",
        "supervisor": f"{given['name']}-supervisor",
        # The lock lasts as long as supervise.
        "start_supervisor": f"umask 077; cd {directory} && chmod 600 -- * && "
        "if flock -n lock true; then setsid nohup flock -n lock bash -c "
        "'if [ -e environment ]; then . ./environment; fi; bash recipe.sh supervise' >>log 2>&1 </dev/null & "
        "else echo already running; fi",
        "cost": prices.tpu_cost(given["topology"], 1, given["price_per_chip_hour"], given["spot"])
        + "; it costs money until you run the action delete"
        + ("; restarts need the action supervise or supervisor" if given["restart_on_preemption"] else ""),
    }


def _xpk(program: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Submits a JobSet, whose pods restart after preemption."""
    _need("xpk", given, "name", "cluster", "topology", "image")
    secret = f"{given['name']}-environment"
    if given["stage"].startswith("gs://"):
        raise ValueError(
            f"--stage={given['stage']}: attach the bucket with xpk storage attach, and give its path in --model"
        )
    staged = hosts.stage(given["stage"], given["model"])
    command = shlex.join([*program, "--coordinator=auto"])
    if staged:
        command = f"{staged} && exec {command}"
    if given["variables"]:
        # xpk's own --env-file would write the values into the pods, and Google Cloud's audit log.
        wrapped = ["bash", "-c", command] if staged else [*program, "--coordinator=auto"]
        command = shlex.join(["python", "-m", "experiments.launching.kubernetes_secret", secret, "--", *wrapped])
    if given["variables"] or not staged:
        command = f"exec {command}"  # so that SIGTERM reaches it
    zone = [f"--zone={given['zone']}"] if given["zone"] else []
    return {
        "cluster": given["cluster"],
        "secret": secret,
        "zone_flag": "".join(f" {shlex.quote(part)}" for part in zone),
        "workload": [
            *(f"--cluster={given['cluster']}", *zone, f"--workload={given['name']}"),
            *(f"--num-slices={given['num_slices']}", f"--tpu-type={accelerator(given['topology'])}"),
            *(f"--docker-image={given['image']}", f"--max-restarts={given['max_restarts']}"),
            *(f"--storage={storage}" for storage in given["storage"]),
            "--termination-grace-period-seconds=120",
            # Kubernetes replaces $(NAME) in commands, and $$ by $.
            f"--command={command.replace('$', '$$')}",
        ],
        "cost": prices.tpu_cost(given["topology"], given["num_slices"], given["price_per_chip_hour"])
        + "; the cluster costs money until its node pools are deleted",
    }


def _skypilot(program: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Submits a managed job, whose task is YAML in the form of JSON."""
    _need("skypilot", given, "name")
    if bool(given["accelerators"]) == bool(given["topology"]):
        raise ValueError("--backend=skypilot needs one of --accelerators, such as H100:8, and --topology")
    tpu = bool(given["topology"])
    stage = given["stage"]
    resources: dict[str, Any] = {
        "accelerators": f"tpu-{accelerator(given['topology'])}" if tpu else given["accelerators"],
        "use_spot": given["spot"],
        "job_recovery": {"strategy": "EAGER_NEXT_REGION"},
    }
    if given["infra"]:
        resources["infra"] = given["infra"]
    directory = hosts.directory(program)
    mounted: dict[str, Any] = {
        mount.path: {"source": mount.source, "mode": "MOUNT_CACHED" if mount.holds(directory) else "MOUNT"}
        for mount in given["mounts"]
    }
    if stage.startswith(("gs://", "s3://")):
        mounted[given["model"]] = {"source": stage, "mode": "COPY"}
        stage = ""
    task = {
        "name": given["name"],
        "workdir": ".",
        "num_nodes": given["num_nodes"],
        "resources": resources,
        "file_mounts": mounted,
        "secrets": dict.fromkeys(given["variables"], None),
        "setup": hosts.setup(
            hosts.extras("tpu" if tpu else "cuda12", program), hosts.stage(stage, given["model"], ".venv/bin/hf")
        ),
        "run": hosts.sky_run(shlex.join([".venv/bin/python", *program[1:]]), tpu),
    }
    price = given["price_per_chip_hour"]
    count = given["num_nodes"] * chips_per_node(given["accelerators"])
    if tpu:
        said = prices.tpu_cost(given["topology"], given["num_nodes"], price, given["spot"])
    else:
        said = prices.cost(count, price) + ("" if price is not None else ", or see sky jobs queue")
    return {"task": json.dumps({k: v for k, v in task.items() if v not in ({}, "")}, indent=2), "cost": said}


def chips_per_node(accelerators: str) -> int:
    """Returns the number of chips per node of a value like H100:8."""
    _, separator, number = accelerators.rpartition(":")
    return int(number) if separator and number.isdecimal() else 1


def _file_name(name: str) -> str:
    """Returns a name of ASCII letters, digits, hyphens and underscores for the files of a job."""
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter == "-") else "_" for letter in name)


def _need(backend: str, given: dict[str, Any], *names: str) -> None:
    for name in names:
        if not given.get(name):
            raise ValueError(f"--backend={backend} needs --{name}")
