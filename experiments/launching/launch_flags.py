"""Flags of the launcher."""

from absl import flags

from experiments.launching import recipes
from experiments.path_flags import DEFINE_path

BACKENDS = ("local", *recipes.REMOTE)


def define(values: flags.FlagValues) -> None:
    """Defines the launcher's flags, separately from those of the launched command, which share names."""
    flags.DEFINE_enum(
        "backend",
        "local",
        BACKENDS,
        "Where to run: local processes, a Google Cloud TPU VM, xpk (GKE), Slurm or SkyPilot.",
        flag_values=values,
    )
    flags.DEFINE_bool("dry_run", True, "Only print the commands; --nodry_run runs them.", flag_values=values)
    flags.DEFINE_enum(
        "action", "launch", recipes.ACTIONS, "Action of the recipe that --nodry_run runs.", flag_values=values
    )
    flags.DEFINE_string(
        "module",
        "experiments.train",
        "Module to run; it must define its flags on import or in define().",
        flag_values=values,
    )
    flags.DEFINE_string("name", "", "Name of the TPU, the workload or the job; not for local.", flag_values=values)
    _define_machines(values)
    _define_run(values)


def _define_machines(values: flags.FlagValues) -> None:
    """Defines the flags of the machines."""
    flags.DEFINE_integer("num_processes", 1, "local: number of processes.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "port",
        0,
        "local: port of process 0; 0 picks a free one.",
        lower_bound=0,
        upper_bound=2**16 - 1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_nodes", 1, "slurm, skypilot: number of nodes, used exclusively.", lower_bound=1, flag_values=values
    )
    flags.DEFINE_integer(
        "gpus_per_node",
        1,
        "slurm: GPUs per node, with one process each; 0 for CPUs.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_string("zone", "", "gcloud, xpk: zone, such as us-west4-a.", flag_values=values)
    flags.DEFINE_string("topology", "", "gcloud, xpk, skypilot: TPU topology, such as v5e:4x4.", flag_values=values)
    flags.DEFINE_integer("num_slices", 1, "xpk: number of slices of that topology.", lower_bound=1, flag_values=values)
    flags.DEFINE_string("cluster", "", "xpk: name of the cluster.", flag_values=values)
    flags.DEFINE_string("image", "", "xpk: container image in which mass_jax[tpu] is installed.", flag_values=values)
    flags.DEFINE_list("storage", [], "xpk: names of attached storages, such as a Filestore share.", flag_values=values)
    flags.DEFINE_bool(
        "spot", False, "gcloud, skypilot: preemptible (spot) capacity; resumes from --workdir.", flag_values=values
    )
    flags.DEFINE_string(
        "repository", "", "gcloud: URL of a Git repository with this code, which each host clones.", flag_values=values
    )
    flags.DEFINE_string("accelerators", "", "skypilot: GPUs per node, such as H100:8.", flag_values=values)
    flags.DEFINE_string("infra", "", "skypilot: where to run, such as gcp/us-central1 or k8s.", flag_values=values)


def _define_run(values: flags.FlagValues) -> None:
    """Defines the flags of storage, environment, restarts and prices."""
    flags.DEFINE_multi_string(
        "mount",
        [],
        "gcloud, skypilot: PATH=SOURCE to mount on every host, such as /mnt/data=gs://bucket, or for gcloud "
        "/mnt/shared=10.0.0.2:/share (NFS). Repeat for more.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "stage",
        "",
        "Model to copy to the directory of --model before training: an id on the Hugging Face hub, with an optional "
        "@revision, or gs://bucket/model.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "env",
        [],
        "NAME=VALUE, or NAME to pass the variable on from this environment, such as HF_TOKEN. Values are not printed. "
        "Repeat for more.",
        flag_values=values,
    )
    DEFINE_path("env_file", None, "File with such lines, for variables to pass on.", flag_values=values)
    flags.DEFINE_bool(
        "restart_on_preemption",
        False,
        "Restart the run until it ends by itself. gcloud: request the TPU through the queue, and add the actions "
        "supervise and supervisor. slurm: also requeue after the time limit. xpk and skypilot always restart.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "max_restarts", 10, "gcloud, xpk: number of restarts after which to give up.", lower_bound=0, flag_values=values
    )
    flags.DEFINE_float(
        "price_per_chip_hour",
        None,
        "US dollars per chip and hour, for the cost that is printed; by default the on-demand price of TPUs.",
        lower_bound=0.0,
        flag_values=values,
    )
