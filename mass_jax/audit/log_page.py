"""The audit log as one self-contained HTML page: no scripts, no network access, all text escaped.

Characters that are invisible or reorder a line are spelled out, and a Content-Security-Policy blocks what an escape
might miss.
"""

import collections
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mass_jax.audit.chain import Head
from mass_jax.audit.log import records
from mass_jax.render.html import environment
from mass_jax.runtime.workdir import write_atomically

_CURVE_WIDTH, _CURVE_HEIGHT = 220, 90


class Point(NamedTuple):
    """One inner loss and its position in the drawing, in pixels."""

    x: float
    y: float
    loss: float


def write_page(log: pathlib.Path, out: pathlib.Path) -> int:
    """Writes the HTML page of a log.

    Args:
        log: the event log; verified while it is read.
        out: the page. It is replaced atomically and readable by its owner only, as is the log.

    Returns:
        The number of adaptations on the page.

    Raises:
        Broken, UserError: see `log.records`.
    """
    notes: list[str] = []
    head, decisions, held_back = Head(), collections.Counter[str](), collections.Counter[str]()
    events = []
    for record, after in records(log, notes):
        head = after
        if record["kind"] == "adaptation":
            decisions[record["decision"]] += 1
            held_back.update(name for example in record["examples"] for name in failed_gates(example))
            events.append(_event(record))
        elif record["kind"] in ("repair", "fault"):
            reason = record.get("reason", "an incomplete last line was removed")
            notes.append(f"record {record['number']} is a {record['kind']}: {reason}")
    template = environment(__package__).get_template("log.html.jinja")
    text = template.render(head=head, decisions=decisions, held_back=held_back, notes=notes, events=events)
    write_atomically(out, text, mode=0o600)
    return len(events)


def failed_gates(example: Mapping[str, Any]) -> list[str]:
    """Returns the names of the gates that rejected an example."""
    return [name for name, verdict in example["verdicts"].items() if not verdict["passed"]]


def loss_curve(losses: Sequence[Any] | None) -> list[Point]:
    """Returns positions of the inner losses in the drawing; empty unless there are at least two, all numbers.

    >>> [round(point.y) for point in loss_curve([1.0, 0.5])]
    [22, 52]
    """
    known = [loss for loss in losses or [] if isinstance(loss, int | float)]
    if len(known) < 2 or len(known) < len(losses or []):
        return []
    top, spacing = max(*known, 1e-9), (_CURVE_WIDTH - 48) / (len(known) - 1)
    heights = (22 + (_CURVE_HEIGHT - 30) * (1 - loss / top) for loss in known)
    return [Point(24 + i * spacing, y, loss) for i, (y, loss) in enumerate(zip(heights, known, strict=True))]


def _event(record: Mapping[str, Any]) -> dict[str, Any]:
    """Template variables of an adaptation."""
    identifiers = {name: record[name] for name in ("time", "user", "question")}
    identifiers |= {"record": record["hash"], "adapter": record["adapter"]}
    identifiers |= {"weights before": record["identity"]["weights"], "weights after": record["weights_after"]}
    return {
        "record": record,
        "curve": loss_curve(record["losses"]),
        "measurements": list(_measurements(record)),
        "identifiers": identifiers,
    }


def _measurements(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Norms, regression suite and cost."""
    if record["norms"]:
        yield "relative norm of the update", record["norms"]["all"]
        yield "update scaled by", record["factor"]
    for name, value in (record["regression"] or {}).items():
        yield f"regression suite: {name.replace('_', ' ')}", value
    yield "tokens", sum(record["tokens"].values())
    yield "GFLOP", record["flops"] / 1e9
    yield "seconds", sum(record["seconds"].values())
