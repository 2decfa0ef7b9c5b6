"""Rows of the results table: one entry per method, baseline, reference and control.

Settings, training, evaluation and the report all derive from `ROWS`; a new baseline is one entry of it.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A training run whose weights a row uses.

    Attributes:
        name: directory of the run in the workdir of a seed.
        outer: outer loss of MASS, "gold" or "verifier"; None in runs that train the solver alone.
        control: None, "shuffled" or "unrewarded"; see `mass_jax.training.learners.mass_learner`.
        learner: "mass"; "solver_grpo", direct attempts with binary rewards; or "solver_sft", MASS's loss on gold
            solutions alone.
    """

    name: str
    outer: Literal["gold", "verifier"] | None
    control: Literal["shuffled", "unrewarded"] | None = None
    learner: Literal["mass", "solver_grpo", "solver_sft"] = "mass"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the results table: whose weights answer, which examples they adapt to first, and how they answer.

    Attributes:
        label: label in the table.
        role: "paper" for the paper's methods, "baseline" for further ones, "reference" for rows that are evaluated
            beside the methods whose training they share, "control" for rows of --controls.
        training: the training run that provides the weights; None uses the pretrained model.
        examples: "none"; "train", drawn from the training problems; "other", drawn from the training problems of
            another subject than the target's; "self", written by the model for the target problem; "oracle", correct
            examples of the target's own kind, as an upper reference.
        answers: "greedy", one answer; "few_shot", one answer after solved training problems; "majority", the most
            frequent of several sampled answers; "best", a correct one of several sampled answers, if there is one.
        prompt: how the model is asked for examples of its own: "generator", the prompt of meta-training; "instructed",
            an instruction in the chat template, which not every task has.
    """

    label: str
    role: Literal["paper", "baseline", "reference", "control"]
    training: TrainingRun | None
    examples: Literal["none", "train", "other", "self", "oracle"]
    answers: Literal["greedy", "few_shot", "majority", "best"] = "greedy"
    prompt: Literal["generator", "instructed"] = "generator"

    @property
    def run(self) -> str | None:
        """Name of the training run; None for the pretrained model."""
        return None if self.training is None else self.training.name

    @property
    def is_sampled(self) -> bool:
        """Whether several answers are sampled, as many as cost what TT-SS costs."""
        return self.answers in ("majority", "best")


_GRPO = TrainingRun("solver_grpo", None, learner="solver_grpo")
_SFT = TrainingRun("solver_sft", None, learner="solver_sft")
_MASS = TrainingRun("mass", "verifier")
_GOLD = TrainingRun("mass_gold", "gold")
_SHUFFLED = TrainingRun("mass_shuffled", "verifier", "shuffled")
_UNREWARDED = TrainingRun("mass_unrewarded", "verifier", "unrewarded")

ROWS: dict[str, Row] = {
    "base": Row("Base", "paper", None, "none"),
    "few_shot": Row("Few-shot base", "baseline", None, "none", "few_shot"),
    "majority": Row("Base, majority vote", "baseline", None, "none", "majority"),
    "best_of_n": Row("Base, best of n by the verifier", "baseline", None, "none", "best"),
    "ttt": Row("TTT", "paper", None, "train"),
    "ttt_other": Row("TTT on another subject", "baseline", None, "other"),
    "tt_ss": Row("TT-SS", "paper", None, "self"),
    "quest": Row("QueST-style self-synthesis", "baseline", None, "self", prompt="instructed"),
    "solver_grpo": Row("Solver GRPO", "paper", _GRPO, "none"),
    "solver_sft": Row("Solver SFT on gold solutions", "baseline", _SFT, "none"),
    "solver_sft_tt_ss": Row("Solver SFT, then TT-SS", "baseline", _SFT, "self"),
    "mass": Row("MASS", "paper", _MASS, "self"),
    "mass_gold": Row("MASS_gold", "paper", _GOLD, "self"),
    "mass_unadapted": Row("MASS weights, no adaptation", "reference", _MASS, "none"),
    "mass_gold_unadapted": Row("MASS_gold weights, no adaptation", "reference", _GOLD, "none"),
    "oracle": Row("Right examples, as many (reference)", "reference", None, "oracle"),
    "mass_shuffled": Row("Control: rewards shuffled", "control", _SHUFFLED, "self"),
    "mass_unrewarded": Row("Control: generator not rewarded", "control", _UNREWARDED, "self"),
}
"""All rows by name, in the order of the table."""


def named(*roles: str) -> tuple[str, ...]:
    """Returns the names of the rows with one of the roles, in the order of the table.

    >>> named("paper")
    ('base', 'ttt', 'tt_ss', 'solver_grpo', 'mass', 'mass_gold')
    """
    return tuple(name for name, row in ROWS.items() if row.role in roles)


METHODS = named("paper")
BASELINES = named("baseline")
CONTROLS = named("control")
TRAINING_RUNS: dict[str, TrainingRun] = {row.run: row.training for row in ROWS.values() if row.training and row.run}
"""The training runs by name."""
