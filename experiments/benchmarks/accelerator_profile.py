"""Where the time of one call goes: its operations by kernel, and by the layer and operation of the source."""

import collections
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax

from experiments.benchmarks import metagrad_trace

_MOST = 30  # rows of each table
# Parts of an operation's path that the compiler's transformations add, and that tell nothing of the layer.
_WRAPPERS = (
    "jit jvp vmap transpose while body cond checkpoint remat rematted_computation closed_call eval_jaxpr".split()
)


def profiled(call: Callable[[], Any], program: Any) -> dict[str, Any]:
    """Runs a call, which has run before, under the profiler, and adds up its operations.

    Args:
        call: the call.
        program: the compiled program that it runs.

    Returns:
        `busy_seconds`, the time in operations; `span_seconds`, from the first to the last one; `count`; and the rows
        `[name, milliseconds, count]` with the most time: `by_kernel` and `by_source`.

    Raises:
        ValueError: the profile has no operations of the device.
    """
    with tempfile.TemporaryDirectory() as directory:
        metagrad_trace.write(call, pathlib.Path(directory))
        (path,) = pathlib.Path(directory).rglob("*.xplane.pb")
        events = list(_events(jax.profiler.ProfileData.from_file(str(path)), paths_of(program.as_text())))
    if not events:
        raise ValueError("the profile has no operations of the device")
    return {
        "busy_seconds": sum(duration for _, _, _, duration in events) / 1e9,
        "span_seconds": (max(s + d for _, _, s, d in events) - min(s for _, _, s, _ in events)) / 1e9,
        "count": len(events),
        "by_kernel": _most((kernel, duration) for kernel, _, _, duration in events),
        "by_source": _most((source, duration) for _, source, _, duration in events),
    }


def paths_of(text: str) -> dict[str, str]:
    """Returns the path in the source and the type of the result of each operation of a compiled program's text.

    >>> paths_of('  ROOT %dot.1 = f32[2]{0} dot(%a, %b), metadata={op_type="x" op_name="jit(f)/dot_general"}')
    {'dot.1': 'jit(f)/dot_general: f32[2]'}
    """
    found = {}
    for line in text.splitlines():
        name, equals, rest = line.strip().removeprefix("ROOT ").partition(" = ")
        path = rest.partition('op_name="')[2].partition('"')[0]
        if equals and path:
            kind = rest.lstrip("(").partition(" ")[0].partition("{")[0]
            found[name.removeprefix("%")] = f"{path}: {kind}"
    return found


def _events(profile: Any, paths: dict[str, str]) -> Iterator[tuple[str, str, float, float]]:
    """Yields kernel, source, start and duration in nanoseconds of each operation of a program."""
    devices = [plane for plane in profile.planes if plane.name.startswith("/device:")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the profiler's own types
        for plane in devices or profile.planes:
            lines = list(plane.lines)
            # Other lines of a GPU show the same time again, by module and by step.
            streams = [line for line in lines if line.name.startswith("Stream")]
            for line in streams or lines:
                for event in line.events:
                    operation = dict(event.stats).get("hlo_op", event.name if streams else None)
                    if operation is not None:
                        source = source_of(paths.get(str(operation), str(operation)))
                        yield event.name, source, event.start_ns, event.duration_ns


def source_of(path: str) -> str:
    """Returns the last parts of an operation's path, without those of transformations.

    >>> source_of("jit(f)/while/body/checkpoint/transpose(jvp(Llama))/layers/mlp/up_proj/dot_general: f32[2]")
    'transpose(jvp(Llama))/layers/mlp/up_proj/dot_general: f32[2]'
    >>> source_of("gemm_fusion_dot.12")
    'gemm_fusion_dot'
    """
    parts = path.split("/")
    kept = [part for part in parts if part and part.partition("(")[0] not in _WRAPPERS]
    modes = [part for part in parts if part.startswith(("transpose(", "jvp("))]
    name = "/".join([*modes[-1:], *kept[-4:]])
    head, dot, number = name.rpartition(".")
    return head if dot and number.isdecimal() else name


def _most(pairs: Iterator[tuple[str, float]]) -> list[list[Any]]:
    """Returns `[name, milliseconds, count]` of the names with the largest sums."""
    sums: dict[str, float] = collections.defaultdict(float)
    counts: collections.Counter[str] = collections.Counter()
    for name, duration in pairs:
        sums[name] += duration
        counts[name] += 1
    largest = sorted(sums, key=lambda name: -sums[name])[:_MOST]
    return [[name[:200], round(sums[name] / 1e6, 4), counts[name]] for name in largest]
