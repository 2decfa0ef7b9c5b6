"""Answers one batch of questions, from the synthetic examples to the outcomes.

Nothing is recorded or released here. Shape suffixes: N questions, M examples of a question.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mass_jax.method.text import Text
from mass_jax.serving import adaptation, candidates, costs, stages
from mass_jax.serving.events import Outcome
from mass_jax.serving.guards import gates, regression
from mass_jax.serving.guards.bounds import Judged
from mass_jax.serving.guards.policy import Policy
from mass_jax.tasks.base import Problem
from mass_jax.tasks.registry import Chosen
from mass_jax.training.rollout import filled
from mass_jax.types import Adapter

Writer = Callable[[stages.Model, Sequence[Problem], jax.Array], list[list[str]]]
Report = Callable[[str], None]
OnAdapter = Callable[[str, Adapter], None]
PHASES = ("answer", "examples", "gates", "update", "second_answer")


def silent(_: str) -> None:
    """Reports no phases."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that stays the same from batch to batch.

    Attributes:
        model: the model that answers and adapts.
        chosen: the model's own task with its problems; closed with the service.
        policy: the operator's policy.
        refused: why the settings exceed the policy's limits; "" if they do not.
        suite: the regression suite.
        suite_before: the unadapted model's score on it.
        identity: hashes that every record carries.
        label: description of the model.
        user: who asks.
        task_name: name of the task.
        seed: random seed.
        writer: writes the synthetic examples; `stages.write` uses the model itself.
        on_adapter: called with a question's id and the adapter of its answer, before an adapted answer is recorded.
    """

    model: stages.Model
    chosen: Chosen
    policy: Policy
    refused: str
    suite: Text
    suite_before: adaptation.SuiteScore
    identity: Mapping[str, str]
    label: str
    user: str
    task_name: str
    seed: int
    writer: Writer
    on_adapter: OnAdapter | None = None

    @property
    def suite_tokens(self) -> int:
        """Number of tokens of the regression suite."""
        return int(np.asarray(self.suite.mask_BT).sum())

    @property
    def worst_tokens(self) -> int:
        """Largest number of tokens that adapting to one question can use."""
        check = self.model.needs(gates.AnswerCheck)
        return costs.worst_case(self.model.config, check.samples if check else 0, self.suite_tokens)


@dataclasses.dataclass(frozen=True)
class CheckedExamples:
    """Synthetic examples of a batch with the gates' verdicts.

    Attributes:
        measured: examples with the measurements that the gates used.
        verdicts_NM: verdicts by gate.
        passed_NM: True for examples that pass every gate and fit a row.
        used_NM: True for examples to train on: those that passed, of questions that have enough of them and may be
            adapted to.
    """

    measured: candidates.MeasuredCandidates
    verdicts_NM: list[list[dict[str, gates.GateResult]]]
    passed_NM: np.ndarray
    used_NM: np.ndarray


@dataclasses.dataclass(frozen=True)
class Changed:
    """Updates of a batch with their effects.

    Attributes:
        made: the updates.
        suite: score of each on the regression suite.
        answers: answers of the adapted model.
    """

    made: stages.Update
    suite: adaptation.SuiteScore
    answers: list[str]


def solve_batch(
    setup: Setup, questions: Sequence[Problem], size: int, refusals: Sequence[str], report: Report = silent
) -> list[Outcome]:
    """Answers one batch.

    Args:
        setup: what stays the same between batches.
        questions: at most `size` questions that fit the model.
        size: batch size; the last question is repeated to fill the batch.
        refusals: for each question, why it may not be adapted to; "" if it may.
        report: called with the name of each phase that begins, one of `PHASES`.
    """
    report("answer")
    began = time.monotonic()
    tasks = filled(questions, size)
    keys = stages.keys_of(setup.seed, [task.id for task in tasks])
    before = stages.answer(setup.model, None, tasks, stages.keys_named(keys, "answer"))
    answered = time.monotonic()
    outcomes = [
        Outcome(task.id, task.problem, n, size, keys[n], "refused", refusals[n], before=before[n], prompts=prompts)
        for n, (task, prompts) in enumerate((task, stages.prompts_of(setup.model, task)) for task in questions)
    ]
    if not all(refusals):
        allowed_N = np.array([*(refusal == "" for refusal in refusals), *[False] * (size - len(questions))])
        checked = check_examples(setup, tasks, keys, allowed_N, report)
        changed = change(setup, tasks, keys, checked, report)
        outcomes = [
            _concluded(setup, outcome, checked, changed) if refusals[n] == "" else outcome
            for n, outcome in enumerate(outcomes)
        ]
    shares = ((answered - began) / len(questions), (time.monotonic() - answered) / len(questions))
    return [_with_cost(setup, outcome, *shares) for outcome in outcomes]


def check_examples(
    setup: Setup, tasks: Sequence[Problem], keys: np.ndarray, allowed_N: np.ndarray, report: Report = silent
) -> CheckedExamples:
    """Writes synthetic examples and runs the gates on them.

    Args:
        setup: what stays the same between batches.
        tasks: the questions, padded to the batch size.
        keys: random keys of each question.
        allowed_N: True for questions that may be adapted to.
        report: called with the name of each phase that begins.
    """
    model = setup.model
    report("examples")
    texts_NM = setup.writer(model, tasks, stages.keys_named(keys, "write"))
    report("gates")
    synthetic = stages.parse(model, tasks, texts_NM)
    measured = candidates.measure_candidates(model, tasks, synthetic, stages.keys_named(keys, "check"))
    verdicts_NM = [
        gates.run_gates(model.gates, task.problem, row) for task, row in zip(tasks, measured.candidates_NM, strict=True)
    ]
    passed_NM = np.array([[all(verdict.passed for verdict in each.values()) for each in row] for row in verdicts_NM])
    passed_NM &= synthetic.kept_NM.astype(bool)
    # Real examples do not count: alone, they say nothing about this question.
    enough_N = passed_NM[:, : model.num_written].sum(1) >= setup.policy.min_examples
    return CheckedExamples(measured, verdicts_NM, passed_NM, passed_NM & (enough_N & allowed_N)[:, None])


def change(
    setup: Setup, tasks: Sequence[Problem], keys: np.ndarray, checked: CheckedExamples, report: Report = silent
) -> Changed:
    """Trains adapters on the selected examples, then scores the suite and answers the questions with them."""
    model, limits = setup.model, setup.policy.limits
    synthetic, used_NM = checked.measured.synthetic, checked.used_NM
    report("update")
    made = stages.update(model, synthetic, used_NM, stages.keys_named(keys, "adapter"), limits)
    suite = adaptation.score_suite(model.solver, model.weights, made.adapters, setup.suite)
    report("second_answer")
    answers = stages.answer(model, made.adapters, tasks, stages.keys_named(keys, "answer"))
    return Changed(jax.device_get(made), jax.device_get(suite), answers)


def decide(judged: Judged, compared: regression.Regression, tolerance: regression.Tolerance) -> tuple[str, str]:
    """Returns the decision on a finished update, and its reason."""
    if not judged.used:
        return "stopped", judged.reason
    reason = regression.worse(compared, tolerance)
    return ("rolled_back", reason) if reason else ("adapted", "")


def _concluded(setup: Setup, outcome: Outcome, checked: CheckedExamples, changed: Changed) -> Outcome:
    """The final outcome of one question."""
    n, config = outcome.slot, setup.model.config
    outcome = dataclasses.replace(
        outcome,
        decision="too_few",
        reason=_too_few(
            checked.verdicts_NM[n][: setup.model.num_written],
            checked.passed_NM[n, : setup.model.num_written],
            setup.policy.min_examples,
        ),
        candidates=checked.measured.candidates_NM[n],
        verdicts=checked.verdicts_NM[n],
        used=checked.used_NM[n].tolist(),
        steps=config.inner_steps,
        rate=config.inner_lr,
        tokens=_adaptation_tokens(setup, checked, n),
    )
    if not checked.used_NM[n].any():
        return outcome
    before, after = setup.suite_before, changed.suite
    compared = regression.Regression(
        *(float(np.mean(rows)) for rows in (before.right[0], after.right[n], before.nll[0], after.nll[n]))
    )
    decision, reason = decide(changed.made.judged_N[n], compared, setup.policy.regression)
    adapters = changed.made.adapters
    if decision == "adapted" and setup.on_adapter is not None:
        setup.on_adapter(outcome.name, adapters.one(adaptation.take(adapters.leaves, n)))
    return dataclasses.replace(
        outcome,
        decision=decision,
        reason=reason,
        losses=list(changed.made.losses_NK[n]),
        norms={name: norm[n] for name, norm in changed.made.norms.items()},
        factor=changed.made.judged_N[n].factor,
        adapter=adaptation.tree_sha256(adaptation.take(adapters.leaves, n)),
        regression=compared._asdict(),
        after=changed.answers[n],
    )


def _too_few(verdicts_M: Sequence[Mapping[str, gates.GateResult]], passed_M: np.ndarray, least: int) -> str:
    """States how many written examples passed and how many each gate held back."""
    failed = {name: sum(not each[name].passed for each in verdicts_M) for name in verdicts_M[0]}
    held = ", ".join(f"{name} {count}" for name, count in failed.items() if count)
    return f"{int(passed_M.sum())} of {len(passed_M)} examples passed, fewer than {least}" + (
        f"; held back by {held}" if held else ""
    )


def _adaptation_tokens(setup: Setup, checked: CheckedExamples, n: int) -> dict[str, int]:
    """Tokens of one question's adaptation; update tokens count once per step and once more for the final loss."""
    measured, used_M = checked.measured, checked.used_NM[n]
    written = sum(candidate.tokens + 1 for candidate in measured.candidates_NM[n] if candidate.source == "written")
    trained = int((np.asarray(measured.synthetic.examples.mask_BT)[n].sum(-1) * used_M).sum())
    return {
        "examples": int(measured.prompts_N[n]) + written,
        "gates": int(measured.checked_N[n]),
        "update": trained * (setup.model.config.inner_steps + 1),
        "regression": setup.suite_tokens if used_M.any() else 0,
    }


def _with_cost(setup: Setup, outcome: Outcome, answering: float, adapting: float) -> Outcome:
    """Adds tokens, operations and seconds of all phases to an outcome."""
    model, dialogue, task = setup.model, setup.model.dialogue, Problem("", outcome.problem, "", "")
    prompt = int(dialogue.solver_prompts([task])[1][0])

    def tokens_of(text: str | None) -> int:
        return 0 if text is None else prompt + stages.count_tokens(dialogue, text) + 1

    tokens = {"answer": tokens_of(outcome.before), **outcome.tokens, "second_answer": tokens_of(outcome.after)}
    seconds = {"answer": answering, "adaptation": adapting}
    operations = costs.flops(model.solver.config, model.config, tokens)
    return dataclasses.replace(outcome, tokens=tokens, flops=operations, seconds=seconds)
