"""Evaluation: the rows of the table, each a way to prepare for a problem before answering it.

Letters: N tasks, M examples of a task, V votes.
"""

import collections
import dataclasses
import pathlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.evaluation.records import RecordLog
from mass_jax.llama import flops
from mass_jax.method import generate
from mass_jax.method.models import Weights
from mass_jax.method.text import Rollout, cut_off
from mass_jax.tasks.base import Example, Problem, Problems, Rejected, start_verifying
from mass_jax.training import train
from mass_jax.training.components import Parts


@dataclasses.dataclass(frozen=True)
class Row:
    """One method: whose weights answer, what they practise on first, and how they answer.

    Args:
        label: as the table prints it.
        trained: name of the training run whose weights are used; None is the pretrained model.
        practice: "none"; "train", examples drawn from the training problems; "other", the same from another subject
            than the target's; "self", written by the model for this problem; "oracle", right examples of the target's
            own kind, an upper bound.
        answers: "greedy", one answer; "few_shot", one answer behind examples of training problems; "majority", the
            answer that most of several samples give.
    """

    label: str
    trained: str | None
    practice: Literal["none", "train", "other", "self", "oracle"]
    answers: Literal["greedy", "few_shot", "majority"] = "greedy"


ROWS = {
    "base": Row("Base", None, "none"),
    "few_shot": Row("Few-shot base", None, "none", "few_shot"),
    "majority": Row("Base, majority vote", None, "none", "majority"),
    "ttt": Row("TTT", None, "train"),
    "ttt_other": Row("TTT on another subject", None, "other"),
    "tt_ss": Row("TT-SS", None, "self"),
    "solver_grpo": Row("Solver GRPO", "solver_grpo", "none"),
    "mass": Row("MASS", "mass", "self"),
    "mass_gold": Row("MASS_gold", "mass_gold", "self"),
}
REFERENCES = {
    "mass_unadapted": Row("MASS weights, no adaptation", "mass", "none"),
    "mass_gold_unadapted": Row("MASS_gold weights, no adaptation", "mass_gold", "none"),
    "oracle": Row("Right examples, as many (reference)", None, "oracle"),
    "mass_shuffled": Row("Control: rewards shuffled", "mass_shuffled", "self"),
    "mass_unrewarded": Row("Control: generator not rewarded", "mass_unrewarded", "self"),
}
ALL_ROWS = ROWS | REFERENCES


@dataclasses.dataclass(frozen=True)
class Job:
    """One row of one seed.

    Args:
        parts: model and settings.
        weights: those that the row asks for.
        name: key of `ALL_ROWS`.
        problems: evaluation columns, and training problems for TTT and few-shot prompts.
        seed: of practice examples and votes; other answers are greedy.
        votes: V, for the majority.
    """

    parts: Parts
    weights: Weights
    name: str
    problems: Problems
    seed: int
    votes: int = 1

    @property
    def row(self) -> Row:
        return ALL_ROWS[self.name]


def evaluate(job: Job, path: pathlib.Path, stop: runtime.Stop) -> None:
    """Evaluates one row on every column; goes on where the file ends, and returns at once if that is the end.

    Args:
        job: the row.
        path: one JSON line a problem, appended batch by batch.
        stop: polled between batches.

    While a batch is sampled, the answers of the one before are verified (where the task can do so by itself).
    """
    size = job.parts.config.eval_batch
    batches = [(c, p[i : i + size]) for c, p in job.problems.columns.items() for i in range(0, len(p), size)]
    log = RecordLog(path, [len(batch) for _, batch in batches])
    verdicts: Callable[[], list[dict[str, Any]]] | None = None
    try:
        for i, report in runtime.progress(f"evaluate {job.name}", log.done, len(batches)):
            stop.poll()
            column, batch = batches[i]
            asked = answer(job, column, batch, jax.random.fold_in(jax.random.key(job.seed), i))
            if verdicts is not None:
                records, verdicts = verdicts(), None
                log.append(records)
                report(right=float(np.mean([record["right"] for record in records])))
            verdicts = asked
    finally:
        if verdicts is not None:
            log.append(verdicts())


def answer(job: Job, column: str, batch: Sequence[Problem], key: jax.Array) -> Callable[[], list[dict[str, Any]]]:
    """Prepares for each problem as the row says, answers, and starts to verify.

    Returns:
        A function that waits for the verdicts and gives one record a problem. Seconds are those of sampling and
        training, shared equally by the batch.
    """
    parts, row, began = job.parts, job.row, time.monotonic()
    tasks = filled(batch, parts.config.eval_batch)
    write_keys_N, adapter_keys_N, answer_keys_N = jax.random.split(key, (3, len(tasks)))
    practice, written = _practise(job, tasks, write_keys_N)
    adapted, trained_N = None, np.zeros(len(tasks))
    if practice is not None:
        trained_N = parts.config.inner_steps * practice.examples.mask_BT.sum((1, 2))
        adapters = parts.loop.init_adapters(adapter_keys_N)
        adapted = train.adapt_jit(parts.loop, job.weights, adapters, practice.kept_NM, practice.examples)
    prompts = _prompts(job, tasks)
    count, temperature = (job.votes, parts.config.temperature) if row.answers == "majority" else (1, 0.0)
    attempts, responses = train.respond(parts, job.weights, adapted, prompts, answer_keys_N, count, temperature)
    read_N, written_N, cut_off_N = _counted(parts, prompts[1], attempts, written)
    seconds = (time.monotonic() - began) / len(batch)
    chosen = [_vote(parts, texts) for texts in responses[: len(batch)]]
    verdicts = start_verifying(parts.dialogue.task, batch, [response for response, _ in chosen])

    def records() -> list[dict[str, Any]]:
        found = []
        for n, (task, verdict) in enumerate(zip(batch, verdicts(), strict=True)):
            tokens = {"read": read_N[n], "written": written_N[n], "trained": trained_N[n]}
            record = {"row": job.name, "column": column, "seed": job.seed, "id": task.id, "subject": task.subject}
            record |= {"cluster": task.cluster_key, "problem": task.problem, "answer": task.answer}
            record |= {"response": chosen[n][0], "verdict": verdict.value, "right": int(verdict.value == "right")}
            record |= {f"tokens_{name}": int(count) for name, count in tokens.items()}
            record |= {f"{name}_cut_off": int(cut_N[n]) for name, cut_N in cut_off_N.items()}
            record |= {"flops": _flops(parts, tokens), "seconds": round(seconds, 4)}
            record |= {"votes": chosen[n][1]} if job.row.answers == "majority" else {}
            found.append(record | ({} if practice is None else _describe(parts, task, practice, n)))
        return found

    return records


def filled(batch: Sequence[Problem], size: int) -> list[Problem]:
    """A smaller batch filled up by its last problem, so that it takes no compilation of its own."""
    return [*batch, *[batch[-1]] * (size - len(batch))]


def _practise(job: Job, tasks: Sequence[Problem], keys_N: jax.Array) -> tuple[generate.Practice | None, Rollout | None]:
    """What a row practises on, and the rollouts [N, M, T] of what the model wrote for it."""
    parts, count = job.parts, job.parts.config.num_test_examples
    if job.row.practice == "none":
        return None, None
    if job.row.practice == "self":
        return train.write_examples(parts, job.weights, tasks, keys_N, count)
    given_NM: list[list[Example | Rejected]] = [[*_given(job, task, count)] for task in tasks]
    return parts.dialogue.encode(tasks, [[""] * count for _ in tasks], given_NM), None


def _counted(
    parts: Parts, prompt_N: np.ndarray, attempts: Rollout, written: Rollout | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Tokens read, tokens written, and how many answers and examples the limits on their tokens cut off."""
    stops = parts.solver.config.stop_tokens
    read_N, written_N = prompt_N, attempts.text.target_BT.sum((1, 2))
    cut_off_N = {"answers": cut_off(attempts, stops).sum(-1)}
    if written is not None:
        read_N = read_N + (written.text.mask_BT.sum(-1) - written.text.target_BT.sum(-1))[:, 0]
        written_N = written_N + written.text.target_BT.sum((1, 2))
        cut_off_N["examples"] = cut_off(written, stops).sum(-1)
    return read_N, written_N, cut_off_N


def _given(job: Job, task: Problem, count: int) -> list[Example]:
    """Practice examples that nobody writes: training problems, or right ones of the target's kind."""
    if job.row.practice == "oracle":
        if job.problems.oracle is None:
            raise ValueError(f"{job.row.label}: this task has no oracle for examples; leave the row out")
        return job.problems.oracle(task, count)
    known = job.problems.train
    rng = random.Random(f"mass ttt {job.seed} {task.id}")
    if job.row.practice == "other":  # one subject, not a mixture of all others: as uniform as the oracle's examples
        subject = rng.choice(sorted({p.subject for p in known} - {task.subject}) or [task.subject])
        known = [p for p in known if p.subject == subject]
    drawn = rng.sample(known, count) if count <= len(known) else rng.choices(known, k=count)
    return [Example(p.problem, p.solution) for p in drawn]


def _prompts(job: Job, tasks: Sequence[Problem]) -> tuple[np.ndarray, np.ndarray]:
    """Solver prompts of the row: tokens [N, T] and lengths [N]."""
    if job.row.answers != "few_shot":
        return job.parts.dialogue.solver_prompts(tasks)
    count = job.parts.config.num_test_examples
    return job.parts.dialogue.few_shot_prompts(tasks, [_given(job, task, count) for task in tasks])


def _vote(parts: Parts, responses: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The first response that gives the most frequent answer (the earliest of equals), and the count of each answer."""
    answers = [parts.dialogue.task.final_answer(response) for response in responses]
    counts = collections.Counter(found for found in answers if found is not None)
    if not counts:
        return responses[0], {}
    return responses[answers.index(counts.most_common(1)[0][0])], dict(counts)


def votes_at_equal_compute(base: Sequence[dict[str, Any]], synthesis: Sequence[dict[str, Any]]) -> int:
    """How many answers take the operations of a question of TT-SS, its training included; the prompt is read once.

    >>> one = {"flops": 50.0, "tokens_read": 20, "tokens_written": 5}
    >>> votes_at_equal_compute([one], [{"flops": 1040.0}])
    100
    """
    taken, read, written = (float(np.sum([r[n] for r in base])) for n in ("flops", "tokens_read", "tokens_written"))
    a_token = taken / (read + written)
    budget = float(np.mean([r["flops"] for r in synthesis])) * len(base)
    return max(1, round((budget - a_token * read) / (a_token * written)))


def _flops(parts: Parts, tokens: Mapping[str, float]) -> float:
    config, counted = parts.config, flops.Tokens(**tokens)
    return flops.flops(parts.solver.config, counted, inner_steps=config.inner_steps, lora_blocks=config.lora_blocks)


def _describe(parts: Parts, task: Problem, practice: generate.Practice, n: int) -> dict[str, Any]:
    """The practice of one task, as a record keeps it."""
    examples: list[dict[str, Any]] = []
    for text, parsed in zip(practice.texts_NM[n], practice.parsed_NM[n], strict=True):
        if isinstance(parsed, Rejected):
            examples.append({"text": text, "rejected": parsed.reason})
        else:
            useful = parts.dialogue.task.useful(task, parsed)
            examples.append({"text": text, "problem": parsed.problem, "solution": parsed.solution, "useful": useful})
    return {"examples": examples}
