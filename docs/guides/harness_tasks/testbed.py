"""The testbed's problems, from the records of experiments.evaluate, as tasks of Inspect."""

import pathlib

from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import exact

RECORDS = str(pathlib.Path(__file__).parents[3] / "runs/base/seed0/evaluation/base.jsonl")
CONFIG = GenerateConfig(max_tokens=3, stop_seqs=["\n"])


@task
def testbed() -> Task:
    """Prompts that a model continues."""

    def sample(record: dict) -> Sample:
        return Sample(f"solve {record['problem']} =", target=record["answer"], id=record["id"])

    return Task(json_dataset(RECORDS, sample), scorer=exact(), config=CONFIG)


@task
def testbed_questions() -> Task:
    """Questions, for a model that poses them itself and may adapt to each."""

    def sample(record: dict) -> Sample:
        return Sample(record["problem"], target=record["answer"], id=record["id"])

    return Task(json_dataset(RECORDS, sample), scorer=exact(), config=CONFIG)
