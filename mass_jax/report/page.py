"""A page of worked examples as one self-contained HTML file. Everything shown is escaped: it is model output."""

import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1f2937 }
h2 { border-top: 1px solid #d1d5db; padding-top: 1rem } code { background: #f3f4f6; padding: 0 .25em }
.stages { display: grid; grid-template-columns: 1fr 1fr; gap: 2rem } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .15rem .5rem; border-bottom: 1px solid #e5e7eb } td.n { text-align: right }
.right, .useful { color: #15803d; font-weight: 600 } .wrong { color: #b91c1c } .rejected { color: #9ca3af }
"""


def write_page(worked: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """Writes the page: problem, examples of each stage with scores and rewards, answers before and after adaptation."""
    body = "\n".join(_problem(record) for record in worked)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Worked examples</title><style>{_STYLE}</style>'
        "<h1>Worked examples</h1><p>For each problem: the practice examples that the generator wrote before and after "
        "meta-training, the trained scorer's score, the reward −dL/ds under the gold solution, and the model's answer "
        "before and after two LoRA steps on them. Green: right, and about the target's operator.</p>"
        f"{body}</html>\n"
    )
    path.write_text(text, encoding="utf-8")


def _problem(record: Mapping[str, Any]) -> str:
    stages = "".join(_stage(name, stage, record["answer"]) for name, stage in record["stages"].items())
    return (
        f"<h2><code>{html.escape(record['problem'])}</code> = {html.escape(record['answer'])} "
        f"<small>({html.escape(record['subject'])})</small></h2><div class=stages>{stages}</div>"
    )


def _stage(name: str, stage: Mapping[str, Any], answer: str) -> str:
    rows = "".join(_example(example) for example in stage["examples"])
    answers = ", ".join(
        f"{kind}: <span class={'right' if stage[kind].strip() == answer else 'wrong'}>{html.escape(stage[kind])}</span>"
        for kind in ("unadapted", "adapted")
    )
    head = "<tr><th>written<th>score<th>reward</tr>"
    return f"<div><h3>{html.escape(name)} meta-training</h3><table>{head}{rows}</table><p>Answer {answers}</p></div>"


def _example(example: Mapping[str, Any]) -> str:
    text = html.escape(example["text"])
    if "rejected" in example:
        return f"<tr class=rejected><td>{text}<td colspan=2>{html.escape(example['rejected'])}</tr>"
    kind = " class=useful" if example["useful"] else ""
    return f"<tr><td{kind}>{text}<td class=n>{example['score']:.2f}<td class=n>{example['reward']:+.3f}</tr>"
