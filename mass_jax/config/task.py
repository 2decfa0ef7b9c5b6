"""Settings of the model, the task and the results table."""

import dataclasses

from mass_jax.config.fields import setting
from mass_jax.rows import BASELINES, METHODS


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings of the model, the task and the results table."""

    model: str = setting(
        "tiny",
        "Model to adapt: 'tiny' (embedded, offline), or a directory or hub id with the Hugging Face files of a Llama "
        "(for --task=testbed also a domain.json).",
        path=True,
    )
    task: str = setting("testbed", "Task to adapt to: testbed, families, math, or a name that you added to CATALOGUE.")
    train_data: str = setting(
        "math", "Training problems of --task=math: a named data set, a hub id or a local file.", path=True
    )
    eval_data: str = setting(
        "math500", "Evaluation problems of --task=math: a named data set, a hub id or a local file.", path=True
    )
    bad_rows: str = setting(
        "skip",
        "How to treat unusable rows of --train_data and --eval_data: skip and count them by reason, or stop with an "
        "error.",
        choices=("skip", "error"),
    )
    num_shots: int = setting(
        0,
        "Number of solved problems shown in every prompt of --task=math, or before the question in --task=families "
        "(at most 3). Small models need a few to follow the answer format.",
        minimum=0,
    )
    methods: tuple[str, ...] = setting(
        METHODS, "Rows of the results table; each is trained if it needs training.", choices=METHODS + BASELINES
    )
    seeds: tuple[int, ...] = setting(
        (0,), "Random seeds of meta-training, separated by commas; each is trained and evaluated on its own."
    )
    num_train_problems: int = setting(1000, "Number of problems to meta-train on.", minimum=1)
    num_eval_problems: int = setting(
        400, "Number of evaluation problems in each column of the results table.", minimum=2
    )
    controls: bool = setting(
        False, "Also train two controls of MASS: rewards shuffled within a problem, and no reward for the generator."
    )
