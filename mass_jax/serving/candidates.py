"""Measures synthetic examples for the gates: loss, agreement with sampled answers, and answers the task recomputes.

Only what the active gates need is measured. Shape suffixes: N questions, M examples of a question.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mass_jax.method import generate
from mass_jax.serving import adaptation, stages
from mass_jax.serving.guards.gates import AnswerCheck, Calibration, Candidate, Recomputes
from mass_jax.tasks.base import Example, Problem, Rejected, Verdict


class MeasuredCandidates(NamedTuple):
    """Examples of a batch with the measurements that gates may use.

    Attributes:
        synthetic: the examples as rows.
        candidates_NM: the examples as gates see them.
        prompts_N: tokens of the prompts under which they were written.
        checked_N: tokens used by the measurements.
    """

    synthetic: generate.SyntheticExamples
    candidates_NM: list[list[Candidate]]
    prompts_N: np.ndarray
    checked_N: np.ndarray


def measure_candidates(
    model: stages.Model, tasks: Sequence[Problem], synthetic: generate.SyntheticExamples, keys_N: jax.Array
) -> MeasuredCandidates:
    """Measures each example as far as the active gates require.

    Args:
        model: the model and its gates.
        tasks: the questions.
        synthetic: the parsed examples of each question.
        keys_N: keys for the sampled answers.
    """
    shape = synthetic.kept_NM.shape
    nll_NM = agreement_NM = None
    checked_N = np.zeros(shape[0], int)
    if model.needs(Calibration):
        nll_NM = np.asarray(adaptation.example_nll(model.solver, model.weights, synthetic.examples))
        checked_N += np.asarray(synthetic.examples.mask_BT).sum((1, 2))
    recomputed_NM = [[_recompute(model, parsed) for parsed in row] for row in synthetic.parsed_NM]
    check = model.needs(AnswerCheck)
    if check and any(known is None for row in recomputed_NM for known in row):
        agreement_NM, sampled_N = _agreement(model, tasks, synthetic, keys_N, check.samples)
        checked_N += sampled_N
    candidates = [
        [
            Candidate(
                text=synthetic.texts_NM[n][m],
                parsed=synthetic.parsed_NM[n][m],
                tokens=stages.count_tokens(model.dialogue, synthetic.texts_NM[n][m]),
                source="written" if m < model.num_written else "real",
                nll=_known(nll_NM, synthetic, n, m),
                agreement=_known(agreement_NM, synthetic, n, m),
                recomputed=recomputed_NM[n][m],
            )
            for m in range(shape[1])
        ]
        for n in range(shape[0])
    ]
    prompts_N = model.dialogue.generator_prompts(tasks)[1]
    return MeasuredCandidates(synthetic, candidates, prompts_N, checked_N)


def real_nll(model: stages.Model) -> list[float]:
    """Returns the losses of the real examples that fit their row, in nats per token."""
    problems = [Problem("", example.problem, example.solution, "") for example in model.real]
    synthetic = model.dialogue.encode(problems, [[""]] * len(problems), [[example] for example in model.real])
    nll_N1 = np.asarray(adaptation.example_nll(model.solver, model.weights, synthetic.examples))
    return [float(nll) for nll, kept in zip(nll_N1[:, 0], synthetic.kept_NM[:, 0], strict=True) if kept]


def _known(values_NM: np.ndarray | None, synthetic: generate.SyntheticExamples, n: int, m: int) -> float | None:
    """A measured value; None for masked rows and for values that no gate needs."""
    return None if values_NM is None or not synthetic.kept_NM[n, m] else float(values_NM[n, m])


def _recompute(model: stages.Model, parsed: Example | Rejected) -> bool | None:
    """Whether a solution is correct according to the task; None where the task computes no answer."""
    task = model.dialogue.task
    if isinstance(parsed, Rejected) or not isinstance(task, Recomputes):
        return None

    def right() -> bool | None:
        computed = task.recompute(parsed.problem)
        if computed is None:
            return None
        return task.verify([Problem("", parsed.problem, computed, computed)], [parsed.solution])[0] is Verdict.RIGHT

    return _or(False, right)


def _or(otherwise: Any, call: Callable[[], Any]) -> Any:
    """The result of a call into a user's task, or `otherwise` if it raises; only that text is affected."""
    try:
        return call()
    except Exception:
        return otherwise


def _agreement(
    model: stages.Model,
    tasks: Sequence[Problem],
    synthetic: generate.SyntheticExamples,
    keys_N: jax.Array,
    samples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Shares [N, M] of sampled answers that agree with each example's own, and tokens used [N]."""
    dialogue, (N, M) = model.dialogue, synthetic.kept_NM.shape
    asked = [
        Problem("", parsed.problem, parsed.solution, _final(dialogue.task, parsed.solution))
        if isinstance(parsed, Example) and not stages.unfit(model.dialogue, parsed.problem)
        else None
        for row in synthetic.parsed_NM
        for parsed in row
    ]
    stand_ins = [task for task in tasks for _ in range(M)]  # keeps the shape fixed
    prompts = dialogue.solver_prompts([task or other for task, other in zip(asked, stand_ins, strict=True)])
    keys = jax.vmap(lambda key: jax.random.split(key, M))(keys_N).reshape(N * M)
    responses, taken = stages.sample_answers(model, prompts, keys, samples)
    shares = [_share(dialogue.task, task, row) for task, row in zip(asked, responses, strict=True)]
    return np.array(shares).reshape(N, M), taken.reshape(N, M).sum(-1).astype(int)


def _share(task: Any, problem: Problem | None, responses: Sequence[str]) -> float:
    """Share of correct responses, taking the problem's answer as correct; each distinct response is checked once."""
    if problem is None:
        return 0.0
    counts = collections.Counter(responses)
    verdicts = _or([Verdict.WRONG] * len(counts), lambda: task.verify([problem] * len(counts), [*counts]))
    agreed = sum(count for count, verdict in zip(counts.values(), verdicts, strict=True) if verdict is Verdict.RIGHT)
    return agreed / len(responses)


def _final(task: Any, solution: str) -> str:
    """The final answer in a solution, or the whole solution if the task finds none."""
    found = _or(None, lambda: task.final_answer(solution))
    return solution if found is None else found
