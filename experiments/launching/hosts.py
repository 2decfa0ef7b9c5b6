"""Commands that a recipe runs on hosts, with every value quoted."""

import itertools
import shlex
from collections.abc import Sequence

from experiments import settings
from mass_jax.config import Config
from mass_jax.llama.hub import FILES
from mass_jax.runtime.remote.store import EXTRAS, is_url
from mass_jax.runtime.trackers import NAMES

EXTRAS_OF_TASKS = {"reasoning_gym": "reasoning-gym"}


def stage(source: str, model: str, hf: str = "hf") -> str:
    """Returns the command that copies a model to the directory of --model; it resumes a partial copy.

    Of a hub's repository, it copies only the files that a run reads: not the same weights in other formats.

    Args:
        source: id on the Hugging Face hub, with an optional @revision, or a bucket; "" for none.
        model: directory.
        hf: path of the Hugging Face command line.

    >>> stage("org/name@v1", "/mnt/model").split()[:4]
    ['hf', 'download', '--revision=v1', "'--include=*.json'"]
    """
    if not source:
        return ""
    if "://" in source:
        return shlex.join(["gcloud", "storage", "rsync", "--recursive", source, model])
    name, _, revision = source.partition("@")
    given = [f"--revision={revision}"] if revision else []
    given += [f"--include={pattern}" for pattern in FILES]
    # The path of the command may begin with ~, which the shell expands.
    return f"{hf} {shlex.join(['download', *given, f'--local-dir={model}', '--', name])}"


def argument(program: Sequence[str], name: str) -> str:
    """Returns the last value of a flag on a command line, or "".

    >>> argument(["--workdir", "/a", "--workdir=/b"], "workdir")
    '/b'
    """
    found = ""
    for part, after in itertools.pairwise([*program, ""]):
        flag, separator, value = part.lstrip("-").partition("=")
        if part.startswith("-") and flag == name:
            found = value if separator else after
    return found


def directory(program: Sequence[str]) -> str:
    """Returns the directory of the run's files on the hosts, or "" for the default of a run in a bucket.

    >>> directory(["--workdir=gs://bucket/run", "--local_workdir=/mnt/run"])
    '/mnt/run'
    """
    return argument(program, "local_workdir" if is_url(argument(program, "workdir")) else "workdir")


def extras(accelerator: str, program: Sequence[str]) -> str:
    """Returns the extras of mass_jax that the hosts install, with those of the run's buckets, trackers and task.

    What the flags do not name, the preset decides.

    >>> extras("tpu", ["--workdir=gs://bucket/run"]), extras("cuda12", ["--task=reasoning_gym", "--tracker=wandb"])
    ('tpu,math,gcs', 'cuda12,math,reasoning-gym,wandb')
    """
    preset = argument(program, "preset")
    config = settings.preset(preset or "tiny") if preset in ("", *settings.preset_names()) else Config()
    given = (argument(program, name) for name in ("workdir", "trained"))
    stores = {EXTRAS.get(url.partition("://")[0], "") for url in given if is_url(url)} - {""}
    named = argument(program, "tracker")
    trackers = {name.strip() for name in named.split(",")} if named else set(config.tracker)
    task = EXTRAS_OF_TASKS.get(argument(program, "task") or config.task, "")
    return ",".join([accelerator, "math", *sorted(stores | (trackers & {*NAMES}) | ({task} - {""}))])


def setup(extras: str, staged: str) -> str:
    """Returns the setup of a SkyPilot task, which runs in the checkout on each node."""
    steps = [
        "pip install -q uv",
        "{ [ -x .venv/bin/python ] || uv venv -q --python=3.12 .venv; }",
        f"uv pip install -q --python=.venv '.[{extras}]'",
    ]
    return " && ".join([*steps, *([staged] if staged else [])])


def sky_run(program: str, tpu: bool) -> str:
    """Returns the command of a SkyPilot task; nodes with GPUs find each other by SkyPilot's variables."""
    if tpu:
        return f"exec {program} --coordinator=auto"
    joined = (
        '--coordinator="$(echo "$SKYPILOT_NODE_IPS" | head -n 1):8476" '
        '--num_processes="$SKYPILOT_NUM_NODES" --process_id="$SKYPILOT_NODE_RANK"'
    )
    return f'if [ "$SKYPILOT_NUM_NODES" -eq 1 ]; then exec {program}; else exec {program} {joined}; fi'
