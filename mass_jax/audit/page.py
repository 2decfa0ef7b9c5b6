"""The log as one self-contained HTML page: no script, no network, every text escaped, since it is a stranger's.

The page forbids by its own policy (Content-Security-Policy) whatever an escape might have missed.
"""

import collections
import html
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mass_jax.audit.chain import Head
from mass_jax.audit.log import records
from mass_jax.runtime.workdir import write_atomically

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1f2937 }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid #e5e7eb;
vertical-align: top } td.n { text-align: right; font-variant-numeric: tabular-nums } code { background: #f3f4f6;
padding: 0 .25em; overflow-wrap: anywhere } details { border-top: 1px solid #d1d5db; padding: .4rem 0 }
summary { cursor: pointer } summary b { display: inline-block; min-width: 6.5rem } .adapted { color: #15803d }
.too_few, .refused { color: #6b7280 } .rolled_back, .stopped { color: #b91c1c } .failed { color: #b91c1c }
.side { display: flex; align-items: flex-start; gap: 2rem; flex-wrap: wrap;
margin: .5rem 0 } .small { color: #6b7280; font-size: 13px }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_page(log: pathlib.Path, out: pathlib.Path) -> int:
    """Writes the page of a log.

    Args:
        log: the event log; it is verified on the way.
        out: the page; a kill leaves the old one or the new.

    Returns:
        How many events it shows.

    Raises:
        Broken, UserError: see `log.records`.
    """
    notes: list[str] = []
    head, counts, held = Head(), collections.Counter[str](), collections.Counter[str]()
    events = []
    for record, after in records(log, notes):
        head = after
        if record["kind"] == "adaptation":
            counts[record["decision"]] += 1
            held.update(name for example in record["examples"] for name in failed_gates(example))
            events.append(event_html(record))
        elif record["kind"] in ("repair", "fault"):
            notes.append(
                f"record {record['number']} is a {record['kind']}: {record.get('reason', 'a torn line was cut')}"
            )
    body = "".join((_summary(head, counts, held, notes), *events))
    write_atomically(out, _document(body), mode=0o600)  # it has the texts of the log, which others cannot read
    return len(events)


def shown(text: Any) -> str:
    """A text for the page: escaped, and what would be invisible or turn the line around spelled out.

    >>> shown("<b>\\u202e\\x00")
    '&lt;b&gt;\\\\u202e\\\\u0000'
    """
    if isinstance(text, dict):
        return f"<code>hash {html.escape(str(text.get('hmac_sha256'))[:16])}</code>"
    spelled = (c if c == " " or unicodedata.category(c)[0] not in "CZ" else f"\\u{ord(c):04x}" for c in str(text))
    return html.escape("".join(spelled))


def event_html(record: Mapping[str, Any]) -> str:
    """One event, folded."""
    decision = str(record["decision"])
    changed = f"<bdi>{shown(record['before'])}</bdi> → <bdi>{shown(record['answer'])}</bdi>"
    head = (
        f'<summary><b class="{html.escape(decision)}">{html.escape(decision)}</b> {record["number"]} · '
        f"<code>{shown(record['problem'])}</code> · {changed}</summary>"
    )
    why = f"<p>{shown(record['reason'])}</p>" if record["reason"] else ""
    rows = "".join(_example(example) for example in record["examples"])
    gates = list(record["examples"][0]["verdicts"]) if record["examples"] else []
    titles = "".join(f"<th>{shown(name)}" for name in ("example", "source", "loss", "agreement", *gates, "used"))
    table = f"<table><tr>{titles}</tr>{rows}</table>" if rows else ""
    side = f'<div class="side">{_curve(record["losses"])}{_figures(record)}</div>'
    return f"<details>{head}{why}{table}{side}{_small_print(record)}</details>\n"


def failed_gates(example: Mapping[str, Any]) -> list[str]:
    """Names of the gates that held an example back."""
    return [name for name, verdict in example["verdicts"].items() if not verdict["passed"]]


def _document(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>Test-time changes</title>'
        f"<style>{_STYLE}</style><h1>Test-time changes</h1>{body}</html>\n"
    )


def _summary(head: Head, counts: Mapping[str, int], held: Mapping[str, int], notes: Iterable[str]) -> str:
    decisions = _pairs(("decision", "questions"), counts.items())
    gates = _pairs(("gate", "examples held back"), held.items())
    remarks = "".join(f"<li>{shown(note)}" for note in notes)
    return (
        f"<p>{head.number} records, verified; the last hash is <code>{shown(head.hash)}</code>.</p>"
        f'<div class="side">{decisions}{gates}</div><ul>{remarks}</ul><h2>Events</h2>\n'
    )


def _pairs(titles: Sequence[str], rows: Iterable[tuple[str, Any]]) -> str:
    head = "".join(f"<th>{shown(title)}" for title in titles)
    body = "".join(f'<tr><td>{shown(name)}<td class="n">{shown(value)}</tr>' for name, value in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _example(example: Mapping[str, Any]) -> str:
    cells = "".join(_verdict(verdict) for verdict in example["verdicts"].values())
    text = f"<code>{shown(example['text'])}</code>"
    if "rejected" in example:
        text += f'<br><span class="small">{shown(example["rejected"])}</span>'
    return (
        f'<tr><td>{text}<td>{shown(example["source"])}<td class="n">{_figure(example["nll"])}'
        f'<td class="n">{_figure(example["agreement"])}{cells}<td>{"yes" if example["used"] else "no"}</tr>'
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    if verdict["passed"]:
        return "<td>pass"
    return f'<td class="failed">{shown(verdict["reason"])} ({_figure(verdict["value"])} / {_figure(verdict["limit"])})'


def _figures(record: Mapping[str, Any]) -> str:
    """Norms, regression and cost."""
    rows: list[tuple[str, Any]] = []
    if record["norms"]:
        rows.append(("relative norm of the update", _figure(record["norms"]["all"])))
        rows.append(("scaled by", _figure(record["factor"])))
    for name, value in (record["regression"] or {}).items():
        rows.append((f"suite, {name.replace('_', ' ')}", _figure(value)))
    rows.append(("tokens", sum(record["tokens"].values())))
    rows.append(("GFLOP", _figure(record["flops"] / 1e9)))
    rows.append(("seconds", _figure(sum(record["seconds"].values()))))
    return _pairs(("figure", ""), rows)


def _small_print(record: Mapping[str, Any]) -> str:
    facts = {
        "time": record["time"],
        "user": record["user"],
        "question": record["question"],
        "record": record["hash"],
        "adapter": record["adapter"],
        "weights before": record["identity"]["weights"],
        "weights after": record["weights_after"],
    }
    return '<p class="small">' + "<br>".join(f"{name} {shown(value)}" for name, value in facts.items()) + "</p>"


def _curve(losses: Sequence[Any] | None, width: int = 220, height: int = 90) -> str:
    """The inner losses as a line, with its figures."""
    known = [loss for loss in losses or [] if isinstance(loss, int | float)]
    if len(known) < 2 or len(known) < len(losses or []):
        return ""
    top = max(*known, 1e-9)
    points = list(_points(known, top, width, height))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#2563eb"/>'
        f'<text x="{x:.1f}" y="{y - 7:.1f}" font-size="11" text-anchor="middle">{loss:.3g}</text>'
        for (x, y), loss in zip(points, known, strict=True)
    )
    return (
        f'<figure><svg width="{width}" height="{height}" role="img" aria-label="inner loss">'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="2"/>{marks}</svg>'
        '<figcaption class="small">inner loss, before each step and after the last</figcaption></figure>'
    )


def _points(losses: Sequence[float], top: float, width: int, height: int) -> Iterator[tuple[float, float]]:
    for i, loss in enumerate(losses):
        yield 24 + i * (width - 48) / (len(losses) - 1), 22 + (height - 30) * (1 - loss / top)


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, int | float) else shown(value)
