"""Settings of the model, the task and the results table."""

import dataclasses

from mass_jax.config.fields import nearest, setting
from mass_jax.errors import UserError
from mass_jax.rows import BASELINES, METHODS

COLUMNS = ("problem", "solution", "answer", "subject", "level", "unique_id")
"""Names of the columns that problem files have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings of the model, the task and the results table."""

    model: str = setting(
        "tiny",
        "Model to adapt: 'tiny' (embedded, offline), or a directory or hub id, optionally with @revision, with the "
        "Hugging Face files of a Llama, Mistral, Qwen2, Qwen3 or SmolLM3 (for --task=testbed also a domain.json).",
        path=True,
    )
    random_weights: bool = setting(
        False,
        "Draw the weights of --model from the first of --seeds instead of reading them, to time a model without its "
        "weights. --model needs config.json and the tokenizer's files, or is a name that experiments.plan knows, such "
        "as meta-llama/Llama-3.1-8B-Instruct, which needs no files and gets the embedded model's tokenizer.",
    )
    task: str = setting(
        "testbed",
        "Task to adapt to: testbed, families, math, reasoning_gym, a name that you added to CATALOGUE, or "
        "module:function or file.py:function of your own, which takes (config, directory, tokenizer) and returns a "
        "mass_jax.tasks.registry.Chosen.",
    )
    train_data: str = setting(
        "math",
        "Training problems of --task=math: a named data set or a hub id, optionally with @revision, a local file "
        "(CSV, JSONL, Parquet) or a directory (saved by datasets, or a copy of a repository on the hub).",
        path=True,
    )
    eval_data: str = setting(
        "math500", "Evaluation problems of --task=math, in the same forms as --train_data.", path=True
    )
    columns: tuple[str, ...] = setting(
        ("none",),
        "Columns to rename in --train_data and --eval_data, as NAME:COLUMN separated by commas, such as "
        f"problem:question,answer:label, or none. NAME is one of {', '.join(COLUMNS)}; several names may share a "
        "column. Named data sets keep theirs.",
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
        "(at most 3) and --task=reasoning_gym (at most 8). Small models need a few to follow the answer format.",
        minimum=0,
    )
    example_form: str = setting(
        "question_first",
        "How the generator writes an example in --task=families and --task=reasoning_gym: the question first; the "
        "answer first, which makes some problems easier to write than to solve; or worked, with a step in the solution "
        "(--task=families only).",
        choices=("question_first", "answer_first", "worked"),
    )
    families_train: tuple[str, ...] = setting(
        ("all",),
        "Families of --task=families to meta-train on, separated by commas; all stands for those that --families_test "
        "does not name. New problems of them are the column 'seen', or 'test' without --families_test.",
    )
    families_test: tuple[str, ...] = setting(
        ("none",), "Families of --task=families that only the column 'unseen' of the results table has, or none."
    )
    reasoning_train: tuple[str, ...] = setting(
        ("chain_sum", "family_relationships", "gcd", "products"),
        "Families of --task=reasoning_gym to meta-train on, separated by commas; new problems of them are the column "
        "'seen'. fitting stands for all that fit small models.",
    )
    reasoning_test: tuple[str, ...] = setting(
        ("calendar_arithmetic", "leg_counting"),
        "Families of --task=reasoning_gym that only the column 'unseen' of the results table has.",
    )
    reasoning_level: str = setting(
        "easy",
        "Difficulty of --task=reasoning_gym: the first level of each family's curriculum, or the package's defaults.",
        choices=("easy", "default"),
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

    @property
    def renamed_columns(self) -> dict[str, str]:
        """Column of the file for each name in --columns.

        Raises:
            UserError: An item is not of the form NAME:COLUMN, or its name is unknown or repeated.

        >>> TaskSettings(columns=("problem:question", "answer:label")).renamed_columns
        {'problem': 'question', 'answer': 'label'}
        """
        renamed: dict[str, str] = {}
        for item in self.columns if self.columns != ("none",) else ():
            name, _, column = item.partition(":")
            if not name or not column:
                raise UserError(f"--columns={item!r} must be NAME:COLUMN, like problem:question")
            if name not in COLUMNS:
                raise UserError(f"--columns={item!r} renames to an unknown name; {nearest(name, COLUMNS)}")
            if name in renamed:
                raise UserError(f"--columns names {name!r} twice; give it one column")
            renamed[name] = column
        return renamed
