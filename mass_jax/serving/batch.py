"""One batch from questions to outcomes: what was written, what passed, what came of it.

Nothing is recorded or released here. Letters: N questions, M examples of a question.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mass_jax.evaluation.evaluate import filled
from mass_jax.method.text import Text
from mass_jax.serving import adaptation, costs, stages
from mass_jax.serving.events import Outcome
from mass_jax.serving.guards import gates, regression
from mass_jax.serving.guards.bounds import Judged
from mass_jax.serving.guards.policy import Policy
from mass_jax.tasks.base import Problem

Writer = Callable[[stages.Model, Sequence[Problem], jax.Array], list[list[str]]]


@dataclasses.dataclass(frozen=True)
class Setup:
    """All that stays the same from batch to batch.

    Args:
        model: what answers and adapts.
        policy: the operator's.
        refused: why the settings are outside of the policy's limits; "" if they are not.
        suite, suite_before: the regression suite, and the unadapted model's score on it.
        identity: hashes, for every record.
        label: which model it is, in words.
        user, task_name: who asks, and of what.
        seed: of everything drawn.
        writer: what writes the practice; `stages.write` is the model itself.
    """

    model: stages.Model
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

    @property
    def suite_tokens(self) -> int:
        return int(np.asarray(self.suite.mask_BT).sum())

    @property
    def worst_tokens(self) -> int:
        """Most tokens that adapting to one question may take."""
        check = self.model.needs(gates.AnswerCheck)
        return costs.worst_case(self.model.parts.config, check.samples if check else 0, self.suite_tokens)


@dataclasses.dataclass(frozen=True)
class Practised:
    """The batch's practice, judged.

    Args:
        looked: examples with what the gates knew.
        verdicts_NM: what they said.
        passed_NM: what every gate passed and fits a row.
        used_NM: what is trained on: all that passed, of questions that have enough and may be adapted to.
    """

    looked: stages.Looked
    verdicts_NM: list[list[dict[str, gates.GateResult]]]
    passed_NM: np.ndarray
    used_NM: np.ndarray


@dataclasses.dataclass(frozen=True)
class Changed:
    """The batch's updates with what they did.

    Args:
        made: the updates.
        suite: score of each on the suite.
        answers: of the adapted model.
    """

    made: stages.Update
    suite: adaptation.SuiteScore
    answers: list[str]


def solve_batch(setup: Setup, questions: Sequence[Problem], size: int, refusals: Sequence[str]) -> list[Outcome]:
    """Answers one batch.

    Args:
        setup: what stays the same.
        questions: at most `size`, each fit to be asked.
        size: of the batch, which is filled up by its last question.
        refusals: why a question may not be adapted to; "" if it may.
    """
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
        practised = practise(setup, tasks, keys, allowed_N)
        changed = change(setup, tasks, keys, practised)
        outcomes = [
            _concluded(setup, outcome, practised, changed) if refusals[n] == "" else outcome
            for n, outcome in enumerate(outcomes)
        ]
    shares = ((answered - began) / len(questions), (time.monotonic() - answered) / len(questions))
    return [_with_cost(setup, outcome, *shares) for outcome in outcomes]


def practise(setup: Setup, tasks: Sequence[Problem], keys: np.ndarray, allowed_N: np.ndarray) -> Practised:
    """Examples are written, and the gates judge them."""
    model = setup.model
    texts_NM = setup.writer(model, tasks, stages.keys_named(keys, "write"))
    practice = stages.parse(model, tasks, texts_NM)
    looked = stages.look(model, tasks, practice, stages.keys_named(keys, "check"))
    verdicts_NM = [
        gates.run_gates(model.gates, task.problem, row) for task, row in zip(tasks, looked.candidates_NM, strict=True)
    ]
    passed_NM = np.array([[all(verdict.passed for verdict in each.values()) for each in row] for row in verdicts_NM])
    passed_NM &= practice.kept_NM.astype(bool)
    # real examples alone are no practice for the question
    enough_N = passed_NM[:, : model.num_written].sum(1) >= setup.policy.min_examples
    return Practised(looked, verdicts_NM, passed_NM, passed_NM & (enough_N & allowed_N)[:, None])


def change(setup: Setup, tasks: Sequence[Problem], keys: np.ndarray, practised: Practised) -> Changed:
    """Adapters are trained on what passed, and tried on the suite and on the question."""
    model, limits = setup.model, setup.policy.limits
    practice, used_NM = practised.looked.practice, practised.used_NM
    made = stages.update(model, practice, used_NM, stages.keys_named(keys, "adapter"), limits)
    suite = adaptation.score_suite(model.parts.solver, model.weights, made.adapters, setup.suite)
    answers = stages.answer(model, made.adapters, tasks, stages.keys_named(keys, "answer"))
    return Changed(jax.device_get(made), jax.device_get(suite), answers)


def decide(judged: Judged, compared: regression.Regression, tolerance: regression.Tolerance) -> tuple[str, str]:
    """The decision on a finished update, and its reason."""
    if not judged.used:
        return "stopped", judged.reason
    reason = regression.worse(compared, tolerance)
    return ("rolled_back", reason) if reason else ("adapted", "")


def _concluded(setup: Setup, outcome: Outcome, practised: Practised, changed: Changed) -> Outcome:
    """One question's outcome, after everything."""
    n, config = outcome.slot, setup.model.parts.config
    outcome = dataclasses.replace(
        outcome,
        decision="too_few",
        reason=_too_few(
            practised.verdicts_NM[n][: setup.model.num_written],
            practised.passed_NM[n, : setup.model.num_written],
            setup.policy.min_examples,
        ),
        candidates=practised.looked.candidates_NM[n],
        verdicts=practised.verdicts_NM[n],
        used=practised.used_NM[n].tolist(),
        steps=config.inner_steps,
        rate=config.inner_lr,
        tokens=_practice_tokens(setup, practised, n),
    )
    if not practised.used_NM[n].any():
        return outcome
    before, after = setup.suite_before, changed.suite
    compared = regression.Regression(
        *(float(np.mean(rows)) for rows in (before.right[0], after.right[n], before.nll[0], after.nll[n]))
    )
    decision, reason = decide(changed.made.judged_N[n], compared, setup.policy.regression)
    return dataclasses.replace(
        outcome,
        decision=decision,
        reason=reason,
        losses=list(changed.made.losses_NK[n]),
        norms={name: norm[n] for name, norm in changed.made.norms.items()},
        factor=changed.made.judged_N[n].factor,
        adapter=adaptation.tree_sha256(adaptation.take(changed.made.adapters, n)),
        regression=compared._asdict(),
        after=changed.answers[n],
    )


def _too_few(verdicts_M: Sequence[Mapping[str, gates.GateResult]], passed_M: np.ndarray, least: int) -> str:
    """How many written examples passed, and how many each gate held back."""
    failed = {name: sum(not each[name].passed for each in verdicts_M) for name in verdicts_M[0]}
    held = ", ".join(f"{name} {count}" for name, count in failed.items() if count)
    return f"{int(passed_M.sum())} of {len(passed_M)} examples passed, fewer than {least}" + (
        f"; held back by {held}" if held else ""
    )


def _practice_tokens(setup: Setup, practised: Practised, n: int) -> dict[str, int]:
    """Tokens of one question's adaptation; those of the update count once a step, and once for its last loss."""
    looked, used_M = practised.looked, practised.used_NM[n]
    written = sum(candidate.tokens + 1 for candidate in looked.candidates_NM[n] if candidate.source == "written")
    trained = int((np.asarray(looked.practice.examples.mask_BT)[n].sum(-1) * used_M).sum())
    return {
        "examples": int(looked.prompts_N[n]) + written,
        "gates": int(looked.checked_N[n]),
        "update": trained * (setup.model.parts.config.inner_steps + 1),
        "regression": setup.suite_tokens if used_M.any() else 0,
    }


def _with_cost(setup: Setup, outcome: Outcome, answering: float, adapting: float) -> Outcome:
    """The outcome with tokens, operations and seconds of all phases."""
    dialogue, task = setup.model.parts.dialogue, Problem("", outcome.problem, "", "")
    prompt = int(dialogue.solver_prompts([task])[1][0])

    def spoken(text: str | None) -> int:
        return 0 if text is None else prompt + stages.count_tokens(dialogue, text) + 1

    tokens = {"answer": spoken(outcome.before), **outcome.tokens, "second_answer": spoken(outcome.after)}
    seconds = {"answer": answering, "adaptation": adapting}
    operations = costs.flops(setup.model.parts.solver.config, setup.model.parts.config, tokens)
    return dataclasses.replace(outcome, tokens=tokens, flops=operations, seconds=seconds)
