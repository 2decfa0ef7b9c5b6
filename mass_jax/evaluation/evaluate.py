"""Evaluates the rows of the results table: adapts to each problem as the row prescribes, answers and verifies.

Shape suffixes: N problems, M examples per problem, V votes.
"""

import collections
import dataclasses
import pathlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mass_jax import runtime
from mass_jax.config import Config
from mass_jax.evaluation.records import RecordLog
from mass_jax.llama import flops
from mass_jax.method import generate
from mass_jax.method.models import Weights
from mass_jax.method.text import Rollout, cut_off
from mass_jax.rows import ROWS, Row
from mass_jax.tasks.base import Example, Problem, Problems, Rejected, Task, Verdict, start_verifying
from mass_jax.training.rollout import Rollouts, filled


@dataclasses.dataclass(frozen=True)
class Job:
    """Evaluation of one row for one seed.

    Attributes:
        config: the settings.
        rollouts: samples and adapts; every process handles all problems.
        weights: the weights that answer.
        name: key of `ROWS`.
        problems: evaluated columns, and training problems for TTT and few-shot prompts.
        seed: random seed of examples, votes and samples; other answers are greedy.
        votes: V, for the majority vote and the best of V samples.
    """

    config: Config
    rollouts: Rollouts
    weights: Weights
    name: str
    problems: Problems
    seed: int
    votes: int = 1

    @property
    def row(self) -> Row:
        """The row."""
        return ROWS[self.name]


def evaluate(job: Job, path: pathlib.Path, stop: runtime.Stop) -> None:
    """Evaluates one row on every column, starting after the last complete batch in the file.

    While one batch is sampled, the answers to the previous one are verified, if the task can verify asynchronously.

    Args:
        job: the row to evaluate.
        path: file of records, one JSON line per problem, appended batch by batch.
        stop: polled between batches.

    Raises:
        runtime.Interrupted: a stop was requested; the finished batches are in the file.
    """
    size = job.config.eval_batch
    batches = [(c, p[i : i + size]) for c, p in job.problems.columns.items() for i in range(0, len(p), size)]
    log = RecordLog(path, [len(batch) for _, batch in batches])
    verdicts: Callable[[], list[dict[str, Any]]] | None = None
    try:
        for i, report in runtime.progress(f"evaluate {job.name}", log.done, len(batches)):
            stop.poll()
            column, batch = batches[i]
            answered = answer(job, column, batch, jax.random.fold_in(jax.random.key(job.seed), i))
            if verdicts is not None:
                records, verdicts = verdicts(), None
                log.append(records)
                report(right=float(np.mean([record["right"] for record in records])))
            verdicts = answered
    finally:
        if verdicts is not None:
            log.append(verdicts())


def answer(job: Job, column: str, batch: Sequence[Problem], key: jax.Array) -> Callable[[], list[dict[str, Any]]]:
    """Adapts to each problem as the row prescribes, answers, and starts verification.

    Args:
        job: the row to evaluate.
        column: name of the column.
        batch: problems of the column.
        key: random key of the batch.

    Returns:
        A function that waits for the verdicts and returns one record per problem. Its seconds are those of sampling
        and training, divided equally among the problems.
    """
    rollouts, config, row, began = job.rollouts, job.config, job.row, time.monotonic()
    task, tasks = rollouts.dialogue.task, filled(batch, config.eval_batch)
    write_keys_N, adapter_keys_N, answer_keys_N = jax.random.split(key, (3, len(tasks)))
    synthetic, written = _examples(job, tasks, write_keys_N)
    adapted, trained_N = None, np.zeros(len(tasks))
    if synthetic is not None:
        trained_N = config.inner_steps * synthetic.examples.mask_BT.sum((1, 2))
        adapted = rollouts.adapt_to_examples(job.weights, synthetic, adapter_keys_N)
    prompts = _prompts(job, tasks)
    count, temperature = (job.votes, config.temperature) if row.is_sampled else (1, 0.0)
    attempts, responses = rollouts.respond(job.weights, adapted, prompts, answer_keys_N, count, temperature)
    prompt_N, generated_N, cut_off_N = _token_counts(rollouts.solver.config.stop_tokens, prompts[1], attempts, written)
    seconds = (time.monotonic() - began) / len(batch)
    votes = [_vote(task, texts) for texts in responses[: len(batch)]]
    judged = responses[: len(batch)] if row.answers == "best" else [[response] for response, _ in votes]
    verdicts = start_verifying(
        task, [p for p in batch for _ in judged[0]], [text for texts in judged for text in texts]
    )

    def records() -> list[dict[str, Any]]:
        rows = []
        chosen = _best(judged, verdicts())
        for n, (problem, (response, verdict)) in enumerate(zip(batch, chosen, strict=True)):
            tokens = {"read": prompt_N[n], "written": generated_N[n], "trained": trained_N[n]}
            record = {"row": job.name, "column": column, "seed": job.seed, "id": problem.id}
            record |= {"subject": problem.subject, "cluster": problem.cluster_key}
            record |= {"problem": problem.problem, "answer": problem.answer}
            record |= {"response": response, "verdict": verdict.value, "right": int(verdict.value == "right")}
            record |= {f"tokens_{name}": int(count) for name, count in tokens.items()}
            record |= {f"{name}_cut_off": int(cut_N[n]) for name, cut_N in cut_off_N.items()}
            record |= {"flops": _flops(job, tokens), "seconds": round(seconds, 4)}
            record |= {"votes": votes[n][1]} if row.answers == "majority" else {}
            record |= {"samples": len(judged[n])} if row.answers == "best" else {}
            rows.append(record | ({} if synthetic is None else _describe(task, problem, synthetic, n)))
        return rows

    return records


def _examples(
    job: Job, tasks: Sequence[Problem], keys_N: jax.Array
) -> tuple[generate.SyntheticExamples | None, Rollout | None]:
    """Returns the examples that a row adapts to, and the rollouts [N, M, T] of those that the model wrote."""
    count = job.config.num_test_examples
    if job.row.examples == "none":
        return None, None
    if job.row.examples == "self":
        instructed = job.row.prompt == "instructed"
        return job.rollouts.write_examples(job.weights, tasks, keys_N, count, instructed)
    given_NM: list[list[Example | Rejected]] = [[*_given(job, task, count)] for task in tasks]
    return job.rollouts.dialogue.encode(tasks, [[""] * count for _ in tasks], given_NM), None


def _token_counts(
    stops: Sequence[int], prompt_N: np.ndarray, attempts: Rollout, written: Rollout | None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns prompt tokens, generated tokens, and how many answers and examples reached their token limit."""
    generated_N = attempts.text.target_BT.sum((1, 2))
    cut_off_N = {"answers": cut_off(attempts, stops).sum(-1)}
    if written is not None:
        prompt_N = prompt_N + (written.text.mask_BT.sum(-1) - written.text.target_BT.sum(-1))[:, 0]
        generated_N = generated_N + written.text.target_BT.sum((1, 2))
        cut_off_N["examples"] = cut_off(written, stops).sum(-1)
    return prompt_N, generated_N, cut_off_N


def _given(job: Job, task: Problem, count: int) -> list[Example]:
    """Returns examples that no model wrote: training problems, or correct ones of the target's kind."""
    if job.row.examples == "oracle":
        if job.problems.oracle is None:
            raise ValueError(f"{job.row.label}: this task has no oracle for examples; leave the row out")
        return job.problems.oracle(task, count)
    known = job.problems.train
    rng = random.Random(f"mass ttt {job.seed} {task.id}")
    if job.row.examples == "other":  # a single other subject, so that examples are as uniform as the oracle's
        subject = rng.choice(sorted({p.subject for p in known} - {task.subject}) or [task.subject])
        known = [p for p in known if p.subject == subject]
    drawn = rng.sample(known, count) if count <= len(known) else rng.choices(known, k=count)
    return [Example(p.problem, p.solution) for p in drawn]


def _prompts(job: Job, tasks: Sequence[Problem]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row's solver prompts: tokens [N, T] and lengths [N]."""
    if job.row.answers != "few_shot":
        return job.rollouts.dialogue.solver_prompts(tasks)
    count = job.config.num_test_examples
    return job.rollouts.dialogue.few_shot_prompts(tasks, [_given(job, task, count) for task in tasks])


def _vote(task: Task, responses: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Returns the first response with the most frequent answer (ties go to the earliest), and all answers' counts."""
    answers = [task.final_answer(response) for response in responses]
    counts = collections.Counter(value for value in answers if value is not None)
    if not counts:
        return responses[0], {}
    return responses[answers.index(counts.most_common(1)[0][0])], dict(counts)


def _best(judged: Sequence[Sequence[str]], verdicts: Sequence[Verdict]) -> list[tuple[str, Verdict]]:
    """Returns the first correct response to each problem, otherwise its first response, with the verdict.

    >>> _best([["1", "2"], ["3", "4"]], [Verdict.WRONG, Verdict.RIGHT, Verdict.UNPARSABLE, Verdict.WRONG])
    [('2', <Verdict.RIGHT: 'right'>), ('3', <Verdict.UNPARSABLE: 'unparsable'>)]
    """
    best, rest = [], iter(verdicts)
    for texts in judged:
        pairs = list(zip(texts, rest))  # noqa: B905 (takes one verdict per text)
        best.append(next((pair for pair in pairs if pair[1] is Verdict.RIGHT), pairs[0]))
    return best


def votes_at_equal_compute(base: Sequence[dict[str, Any]], synthesis: Sequence[dict[str, Any]]) -> int:
    """Returns how many votes cost as many operations as TT-SS, training included; the prompt is processed once.

    Args:
        base: records of the base row.
        synthesis: records of the TT-SS row.

    >>> one = {"flops": 50.0, "tokens_read": 20, "tokens_written": 5}
    >>> votes_at_equal_compute([one], [{"flops": 1040.0}])
    100
    """
    spent, prompt, generated = (float(np.sum([r[n] for r in base])) for n in ("flops", "tokens_read", "tokens_written"))
    per_token = spent / (prompt + generated)
    budget = float(np.mean([r["flops"] for r in synthesis])) * len(base)
    return max(1, round((budget - per_token * prompt) / (per_token * generated)))


def _flops(job: Job, tokens: Mapping[str, float]) -> float:
    """Returns the floating-point operations spent on a problem."""
    config, counted = job.config, flops.Tokens(**tokens)
    return flops.flops(
        job.rollouts.solver.config, counted, inner_steps=config.inner_steps, lora_blocks=config.lora_blocks
    )


def _describe(task: Task, problem: Problem, synthetic: generate.SyntheticExamples, n: int) -> dict[str, Any]:
    """Returns the examples of one problem in the form of a record."""
    examples: list[dict[str, Any]] = []
    for text, parsed in zip(synthetic.texts_NM[n], synthetic.parsed_NM[n], strict=True):
        if isinstance(parsed, Rejected):
            examples.append({"text": text, "rejected": parsed.reason})
        else:
            useful = task.useful(problem, parsed)
            examples.append({"text": text, "problem": parsed.problem, "solution": parsed.solution, "useful": useful})
    return {"examples": examples}
