"""Command-line flags for every field of `Config`, presets, and one-line errors for invalid input."""

import contextlib
import dataclasses
import errno
import importlib
import os
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from experiments import presets, streams, workdirs
from experiments.path_flags import DEFINE_path
from mass_jax import lazy, runtime
from mass_jax.config import Config, nearest
from mass_jax.config.config import OPTIMIZERS
from mass_jax.errors import UserError, from_program
from mass_jax.own_function import located
from mass_jax.runtime import compile_effort, console

FLAGS = flags.FLAGS


def define() -> None:
    """Defines --preset, --print_config and one flag for each field of `Config`."""
    flags.DEFINE_string("preset", "tiny", f"Preset that the other flags override. One of: {', '.join(preset_names())}.")
    flags.DEFINE_bool("print_config", False, "Print the settings as JSON, with the optimizers in full, and exit.")
    for field in dataclasses.fields(Config):
        _define_one(field)


def define_mesh() -> None:
    """Defines --mesh."""
    flags.DEFINE_string("mesh", "auto", "Mesh axis sizes, such as data:2,fsdp:4,tensor:2, or auto.")


def define_topology() -> None:
    """Defines the flags of the devices to compile for, for commands that run nothing."""
    define_mesh()
    flags.DEFINE_string(
        "topology",
        "local",
        "TPU topology or GPUs to compile for, such as v5e:4x4, v5p:4x4x4 or h100:1; local is this machine.",
    )
    flags.DEFINE_integer("num_slices", 1, "Number of slices of that topology.", lower_bound=1)


def define_compilation_cache() -> None:
    """Defines --compilation_cache, which `run` applies."""
    DEFINE_path(
        "compilation_cache",
        "auto",
        "Directory that keeps compiled programs for later runs; auto is in the user's cache directory, off keeps none. "
        "The environment variable JAX_COMPILATION_CACHE_DIR takes precedence.",
    )


def define_compile_effort() -> None:
    """Defines --compile_effort, which `run` applies."""
    flags.DEFINE_enum(
        "compile_effort",
        compile_effort.FULL,
        compile_effort.EFFORTS,
        "Effort of the compiler on a CPU. fast compiles in less time, and its results differ from those of full by "
        "rounding; fastest also slows down decoding. "
        "XLA_FLAGS with xla_backend_optimization_level takes precedence.",
    )


def define_machines() -> None:
    """Defines the flags for devices and processes; they do not affect results."""
    define_mesh()
    flags.DEFINE_string(
        "coordinator", "", "Multi-process runs: host:port of process 0, or auto to detect it on TPU and Slurm clusters."
    )
    flags.DEFINE_integer("num_processes", 1, "Number of processes, with --coordinator=host:port.", lower_bound=1)
    flags.DEFINE_integer("process_id", 0, "Index of this process, from 0.", lower_bound=0)


def join_machines() -> None:
    """Joins the other processes of the run; call this before anything touches a device."""
    runtime.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)


def workdir_and_mesh(
    held: contextlib.ExitStack, config: Config, example: str, stop: runtime.Stop, devices: Sequence[Any] | None = None
) -> tuple[pathlib.Path, Any] | None:
    """Locks the directory of --workdir and builds the mesh of --mesh, or prints the settings with --print_config.

    Args:
        held: holds the lock and the mesh.
        config: the settings of the command.
        example: directory to suggest if --workdir is missing.
        stop: its polls raise once the lock is lost.
        devices: devices of the mesh; None means all.

    Returns:
        The directory and the mesh; None if the settings were printed.

    Raises:
        ValueError: the directory is missing or in use, or the mesh does not fit the devices.
    """
    if printed(config):
        return None
    if FLAGS.workdir is None:
        raise ValueError(f"--workdir is missing; pass a directory, such as --workdir={example}")
    workdir = workdirs.opened(held, stop)
    held.enter_context(runtime.lock_workdir(workdir, stop))
    mesh = runtime.make_mesh(FLAGS.mesh, devices)
    held.enter_context(runtime.use_mesh(mesh))
    return workdir, mesh


def printed(config: Config) -> bool:
    """Prints the settings as JSON if --print_config is given, and returns whether it is.

    Raises:
        ValueError: If an optimizer is rejected or lacks an argument.
    """
    if FLAGS.print_config:
        print(explicit(config).to_json())
    return bool(FLAGS.print_config)


def _define_one(field: dataclasses.Field) -> None:
    name, help_text = field.name, field.metadata["help"]
    default: Any = field.default
    if choices := field.metadata["choices"]:
        help_text += f" {'One' if isinstance(default, str) else 'Any'} of: {', '.join(choices)}."
    if isinstance(default, bool):
        flags.DEFINE_bool(name, default, help_text)
    elif field.metadata["path"]:
        DEFINE_path(name, default, help_text)
    elif isinstance(default, tuple):
        flags.DEFINE_list(name, [str(item) for item in default], help_text)
    else:
        define_one: dict[type, Callable[..., Any]] = {
            int: flags.DEFINE_integer,
            float: flags.DEFINE_float,
            str: flags.DEFINE_string,
        }
        define_one[type(default)](name, default, help_text)


def preset_names() -> list[str]:
    """Returns the names of the available presets."""
    return sorted(module.name for module in pkgutil.iter_modules(presets.__path__))


def read() -> Config:
    """Returns the settings of the preset, overridden by the flags on the command line.

    Local paths are made absolute, so that a workdir can be read from any working directory.

    Raises:
        ValueError: If the preset is unknown or a setting is invalid.
    """
    name = FLAGS.preset
    if name not in preset_names():
        raise ValueError(f"--preset={name!r} is unknown; {nearest(name, preset_names())}")
    return with_flags(preset(name)).located()


def preset(name: str) -> Config:
    """Returns the settings of a preset, one of `preset_names()`."""
    return importlib.import_module(f"experiments.presets.{name}").config()


def explicit(config: Config) -> Config:
    """Returns the settings with every optimizer resolved, for --print_config.

    Raises:
        ValueError: If an optimizer is rejected or lacks an argument.
    """
    from mass_jax.training.resolved import resolved  # the launcher reads settings without JAX

    return resolved(config)


def own_code() -> list[str]:
    """Returns the optimizers on the command line, whose code a command may import."""
    return [located(str(FLAGS[name].value)) for name in OPTIMIZERS if FLAGS[name].present]


def with_flags(config: Config) -> Config:
    """Returns a configuration overridden by the flags on the command line."""
    given = {f.name: _value(f, FLAGS[f.name].value) for f in dataclasses.fields(Config) if FLAGS[f.name].present}
    located = dataclasses.replace(config, **given).located()
    return dataclasses.replace(config, **{name: getattr(located, name) for name in given})


def _value(field: dataclasses.Field, value: Any) -> Any:
    if not isinstance(field.default, tuple):
        return value
    kind = type(field.default[0])
    try:
        return tuple(kind(item) for item in value)
    except ValueError:
        raise ValueError(f"--{field.name}={','.join(value)} must be a list of {kind.__name__}, like 0,1,2") from None


def parse(argv: Sequence[str]) -> list[str]:
    """Parses a command line that accepts flags only; exits with a one-line error on invalid input."""
    rest = parse_flags(argv)
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; pass settings as --name=value")
    return rest


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses a command line and returns its positional arguments; exits with a one-line error on invalid input."""
    for argument in argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown, encoding = os.fsencode(argument), sys.getfilesystemencoding()
            fix = "write it in UTF-8" if encoding == "utf-8" else "set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
            fail(f"argument {shown!r} is not {encoding} text; {fix}")
    try:
        return FLAGS(list(argv))
    except flags.Error as error:
        return fail(" ".join(str(error).split()))


def fail(message: str) -> Any:
    """Prints an error that the user can fix to stderr and exits with status 2."""
    with contextlib.suppress(OSError):  # stderr may be closed
        print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def guarded(command: Callable[[runtime.Stop], None]) -> None:
    """Runs a command that can be interrupted and resumed, and reports user errors in one line.

    Args:
        command: Takes a `Stop` that it polls at safe points.

    Raises:
        SystemExit: If the command was interrupted or the user's input is invalid.
    """
    try:
        with runtime.stop_on_signals() as stop:
            command(stop)
    except runtime.Interrupted as interrupted:
        logging.warning("stopped by %s; rerun the same command to resume", interrupted)
        raise SystemExit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("stopped; rerun the same command to resume from the last checkpoint", file=sys.stderr)
        os._exit(130)  # a normal exit would wait for compilation and checkpoint threads
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail(f"{error.strerror}: {error.filename or 'output directory'}; free disk space and rerun the same command")
    except RuntimeError as error:
        found = from_program(error)
        if found is None:
            raise
        fail(str(found))


def run(main: Any, parser: Callable[[Sequence[str]], list[str]] = parse) -> None:
    """Runs a command: `app.run` with one-line errors and robust output. Every command calls this.

    Args:
        main: Function of the positional arguments.
        parser: `parse`, or `parse_flags` for a command with positional arguments.
    """
    logging.get_absl_handler().addFilter(console.drop_library_chatter)

    def command(arguments: list[str]) -> None:
        if "compile_effort" in FLAGS:
            runtime.use_compile_effort(FLAGS.compile_effort)
        if "compilation_cache" in FLAGS:
            runtime.use_compilation_cache(FLAGS.compilation_cache)
        try:
            main(arguments)
        except lazy.MissingExtraError as error:
            fail(str(error))

    with streams.guarded():
        app.run(command, flags_parser=parser)
