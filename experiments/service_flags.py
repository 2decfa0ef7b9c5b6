"""Flags of the adaptation service, for the commands that answer questions with it."""

import contextlib
import pathlib
from collections.abc import Iterator

from absl import flags

from experiments import settings, workdirs
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.errors import UserError
from mass_jax.runtime import jsonl
from mass_jax.serving import loading
from mass_jax.serving.guards import regression
from mass_jax.tasks.base import Example

FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags that `open_service` reads, except --batch; a command adopts them to list them in its --help."""
    settings.define_compilation_cache()
    flags.adopt_module_key_flags(settings)  # list it in --help
    workdirs.define("Directory of a run of experiments.train.")
    flags.adopt_module_key_flags(workdirs)
    DEFINE_path("model", None, "Instead of a workdir: 'tiny', or a directory or hub id with model files.")
    flags.DEFINE_string("run", None, "mass, mass_gold or pretrained; defaults to the first one in the workdir.")
    flags.DEFINE_integer("train_seed", None, "Meta-training seed of the workdir; defaults to its first.")
    DEFINE_path("policy", None, "Policy file; defaults to WORKDIR/policy.json.")
    DEFINE_path("log", None, "Event log; defaults to WORKDIR/audit/events.jsonl.")
    flags.DEFINE_string("log_text", "full", "'full', or 'hash' to keep texts out of the log.")
    DEFINE_path("suite", None, "JSONL file of the regression suite, on which an update must not be worse.")
    DEFINE_path("real", None, "JSONL file of real examples ('problem', 'solution') for calibration and mixing in.")
    flags.DEFINE_string("sampler", "native", "Sampler of all completions: native, vllm, module:class or file.py:class.")
    flags.DEFINE_string("sampler_url", None, "Address of the API for --sampler=vllm; default: this host.")
    flags.DEFINE_float("sampler_timeout", None, "Seconds that a request of --sampler=vllm may take.")
    flags.DEFINE_float("sampler_tolerance", None, "Largest difference from the model in the probe of --sampler=vllm.")
    flags.DEFINE_string("task", None, "Own task of the workdir, named again: module:function or file.py:function.")
    flags.DEFINE_string(
        "inner_optimizer", None, "Own inner optimizer of the workdir, named again: module:function or file.py:function."
    )
    flags.DEFINE_integer("seed", 0, "Random seed.")


@contextlib.contextmanager
def open_service(adapt: bool = True) -> Iterator[loading.AdaptationService]:
    """Opens the service that the flags describe; the command defines --batch.

    Args:
        adapt: False answers without adaptation, policy or log.

    Yields:
        The service, which is closed at the end.

    Raises:
        UserError: a flag is missing or invalid.
    """
    if (FLAGS.workdir is None) == (FLAGS.model is None):
        raise UserError("give either --workdir=DIR of a training run, or --model=NAME")
    if adapt and FLAGS.log is None and FLAGS.workdir is not None and runtime.is_url(FLAGS.workdir):
        raise UserError(
            f"--workdir={FLAGS.workdir} is only read, and an answer is released once its event is on a disk; give "
            f"--log=FILE on a disk of this machine"
        )
    with contextlib.ExitStack() as held:
        workdirs.use_copy(held)
        if FLAGS.workdir is not None and not (pathlib.Path(FLAGS.workdir) / "config.json").is_file():
            raise UserError(
                f"--workdir={FLAGS.workdir} holds no run; make one with experiments.train, or give --model=tiny"
            )
        service = loading.load(
            FLAGS.workdir or FLAGS.model,
            run=FLAGS.run,
            train_seed=FLAGS.train_seed,
            policy_file=FLAGS.policy,
            log=FLAGS.log,
            log_text=FLAGS.log_text,
            seed=FLAGS.seed,
            batch=FLAGS.batch,
            suite=FLAGS.suite,
            real=None if FLAGS.real is None else read_real(pathlib.Path(FLAGS.real)),
            adapt=adapt,
            sampler=FLAGS.sampler,
            own_task=FLAGS.task,
            sampler_url=FLAGS.sampler_url,
            inner_optimizer=FLAGS.inner_optimizer,
            sampler_timeout=FLAGS.sampler_timeout,
            sampler_tolerance=FLAGS.sampler_tolerance,
        )
        yield held.enter_context(service)


def read_real(path: pathlib.Path) -> list[Example]:
    """Reads real examples from a JSONL file.

    Raises:
        UserError: a line has no strings "problem" and "solution".
    """
    rows = jsonl.read(path)
    for line, row in rows:
        if not isinstance(row, dict) or not all(regression.is_text(row.get(key)) for key in ("problem", "solution")):
            raise UserError(f'--real={path}:{line} needs strings "problem" and "solution"')
    return [Example(row["problem"], row["solution"]) for _, row in rows]
