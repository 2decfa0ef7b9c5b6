"""Replay: recomputes the adapter of an event from its log record and compares its bits."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mass_jax.audit.texts import Texts
from mass_jax.errors import UserError
from mass_jax.serving import adaptation, stages
from mass_jax.serving.events import number
from mass_jax.tasks.base import Example, Problem, Rejected
from mass_jax.types import Adapter


class Replayed(NamedTuple):
    """A recomputed adapter.

    Attributes:
        adapter: the adapter, on the host.
        same: True if its bits match the record.
        differs: other differences from the record: parts of the identity, "losses", "answer".
    """

    adapter: Adapter
    same: bool
    differs: list[str]


def replay(model: stages.Model, identity: Mapping[str, str], record: Mapping[str, Any], problem: str) -> Replayed:
    """Recomputes an event's adapter at its recorded batch size and slot.

    XLA's order of summation depends on the shapes, so the batch has the recorded size. The contents of the other slots
    do not matter; they repeat this event.

    Args:
        model: the model that made the event.
        identity: identity of that model.
        record: the event.
        problem: text of the event's problem.

    Raises:
        UserError: the event made no adapter, or was made with other weights.
    """
    _check_made(record)
    if record["identity"]["weights"] != identity["weights"]:
        raise UserError(
            f"record {record['number']} was made with weights {record['identity']['weights'][:16]}, "
            f"not {identity['weights'][:16]}; give the same --workdir or --model"
        )
    model = _with_recorded_loop(model, record)
    size, slot = record["batch"]["size"], record["batch"]["slot"]
    tasks = [Problem(record["question"], problem, "", "")] * size
    keys = np.stack([_keys(record)] * size)
    texts, parsed = _examples(model, record, tasks, keys)
    synthetic = model.dialogue.encode(tasks, [texts] * size, [parsed] * size)
    used_NM = np.array([[example["used"] for example in record["examples"]]] * size)
    loop = model.rollouts.loop
    found = adaptation.measured_adapt(
        loop,
        model.weights,
        loop.init_adapters(stages.keys_named(keys, "adapter")),
        used_NM.astype(np.float32),
        synthetic.examples,
    )
    adapters = stages.scale(found.adapters, np.full(size, record["factor"], np.float32))
    adapter = adapters.one(adaptation.take(jax.device_get(adapters.leaves), slot))
    differs = [name for name in identity if identity[name] != record["identity"].get(name)]
    if [number(loss) for loss in np.asarray(found.losses_NK)[slot]] != record["losses"]:
        differs.append("losses")
    after = stages.answer(model, adapters, tasks, stages.keys_named(keys, "answer"))[slot]
    if isinstance(record["after"], str) and after != record["after"]:
        differs.append("answer")
    return Replayed(adapter, adaptation.tree_sha256(adapter.leaves) == record["adapter"], differs)


def problem_of(record: Mapping[str, Any], texts: Texts, given: str | None) -> str:
    """Returns the text of an event's problem.

    Args:
        record: the event.
        texts: how the log stores texts.
        given: the problem, for logs that store no texts.

    Raises:
        UserError: the event made no adapter, its text is neither logged nor given, or another text was given.
    """
    _check_made(record)
    if given is None and not isinstance(record["problem"], dict):
        return record["problem"]
    if given is None:
        raise UserError(f"record {record['number']} stores no texts; give its problem with --problem")
    if not texts.matches(record["problem"], given):
        raise UserError(f"record {record['number']} is not about the problem {given[:60]!r}")
    return given


def _check_made(record: Mapping[str, Any]) -> None:
    if record.get("kind") != "adaptation" or record.get("adapter") is None:
        raise UserError(
            f"record {record.get('number')} made no adapter: it is {record.get('decision', record.get('kind'))}"
        )


def _with_recorded_loop(model: stages.Model, record: Mapping[str, Any]) -> stages.Model:
    """The model with the inner loop of the event."""
    inner = record["inner"]
    num_real = sum(example["source"] == "real" for example in record["examples"])
    return dataclasses.replace(stages.with_loop(model, inner["steps"], inner["rate"]), num_real=num_real)


def _keys(record: Mapping[str, Any]) -> np.ndarray:
    words = [np.frombuffer(bytes.fromhex(record["keys"][name]), ">u4") for name in stages.KEY_NAMES]
    return np.stack(words).astype(np.uint32)


def _examples(
    model: stages.Model, record: Mapping[str, Any], tasks: list[Problem], keys: np.ndarray
) -> tuple[list[str], list[Example | Rejected]]:
    """Texts and examples of the record; regenerated from the keys if it stores no texts."""
    if any(isinstance(example["text"], dict) for example in record["examples"]):
        texts_NM = stages.write(model, tasks, stages.keys_named(keys, "write"))
        synthetic, slot = stages.parse(model, tasks, texts_NM), record["batch"]["slot"]
        return synthetic.texts_NM[slot], synthetic.parsed_NM[slot]
    parsed: list[Example | Rejected] = [
        Example(e["problem"], e["solution"]) if "problem" in e else Rejected(e["rejected"]) for e in record["examples"]
    ]
    return [example["text"] for example in record["examples"]], parsed
