"""absl flags for every field of `Config`, presets, and one-line errors for mistyped input."""

import contextlib
import dataclasses
import errno
import importlib
import logging as std_logging
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from experiments import presets, streams
from experiments.path_flags import DEFINE_path
from mass_jax import runtime
from mass_jax.config import Config, nearest
from mass_jax.errors import UserError

FLAGS = flags.FLAGS


def define() -> None:
    """Defines --preset, --print_config and one flag for every setting."""
    flags.DEFINE_string("preset", "tiny", f"Named settings to start from: {', '.join(preset_names())}.")
    flags.DEFINE_bool("print_config", False, "Print the settings as JSON and stop.")
    for field in dataclasses.fields(Config):
        _define_one(field)


def define_mesh() -> None:
    flags.DEFINE_string("mesh", "auto", "Sizes of the axes, like data:2,fsdp:4,tensor:2, or auto.")


def define_machines() -> None:
    """Defines the flags that say on which devices and with how many processes a command runs; they change no number."""
    define_mesh()
    flags.DEFINE_string(
        "coordinator", "", "For many processes: host:port of process 0, or auto where the cluster tells (TPU, Slurm)."
    )
    flags.DEFINE_integer("num_processes", 1, "Processes of this run, with --coordinator=host:port.", lower_bound=1)
    flags.DEFINE_integer("process_id", 0, "Which of them this is, from 0.", lower_bound=0)


def join_machines() -> None:
    """First in a main: joins the other processes of the run, before anything touches a device."""
    runtime.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)


def _define_one(field: dataclasses.Field) -> None:
    name, help_text = field.name, field.metadata["help"]
    default: Any = field.default
    if choices := field.metadata["choices"]:
        help_text += f" One of: {', '.join(choices)}." if isinstance(default, str) else f" Of: {', '.join(choices)}."
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
    return sorted(module.name for module in pkgutil.iter_modules(presets.__path__))


def read() -> Config:
    """Returns the settings of the preset, overridden by the flags on the command line.

    Local paths are made absolute, so that a workdir can be read from any working directory.

    Raises:
        ValueError: unknown preset or setting, in one line.
    """
    name = FLAGS.preset
    if name not in preset_names():
        raise ValueError(f"--preset={name!r} is unknown; {nearest(name, preset_names())}")
    return with_flags(importlib.import_module(f"experiments.presets.{name}").config()).located()


def with_flags(config: Config) -> Config:
    """Returns settings overridden by the flags on the command line."""
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
    """Parses a command line that takes flags only; a mistake ends the program in one line."""
    rest = parse_flags(argv)
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; settings are given as --name=value")
    return rest


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses a command line and returns its positional arguments; a mistake ends the program in one line."""
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
    """Ends the program with one line on stderr and status 2, for an error that the user can fix."""
    with contextlib.suppress(OSError):  # nobody reads stderr
        print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def guarded(command: Callable[[runtime.Stop], None]) -> None:
    """Runs a command that can be stopped and resumed; an error that the user can fix ends in one line."""
    try:
        with runtime.stop_on_signals() as stop:
            command(stop)
    except runtime.Interrupted as interrupted:
        logging.warning("stopped by %s; run the same command to go on", interrupted)
        raise SystemExit(interrupted.exit_code) from None
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print("stopped at once; run the same command to go on from what is saved", file=sys.stderr)
        os._exit(130)  # threads of a compilation or of a save would outlive a tidy end
    except UserError as error:
        fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fail(f"{error.strerror}: {error.filename or 'where this run writes'}; free some and run the same command")


def run(main: Any, parser: Callable[[Sequence[str]], list[str]] = parse) -> None:
    """Runs a command: `app.run` with one-line errors and robust output; every command starts here.

    Args:
        main: takes the positional arguments.
        parser: `parse`, or `parse_flags` for a command with positional arguments.
    """
    logging.get_absl_handler().addFilter(_is_ours_or_serious)
    with streams.guarded():
        app.run(main, flags_parser=parser)


def _is_ours_or_serious(record: std_logging.LogRecord) -> bool:
    """Leaves out the page that orbax logs at every save."""
    return "orbax" not in record.pathname or record.levelno >= std_logging.WARNING
