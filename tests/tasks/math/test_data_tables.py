"""Tests of problem sets from the hub and from directories in its format, with a local hub."""

import pathlib

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet
import pytest

from mass_jax.errors import UserError
from mass_jax.tasks.math import load
from tests.hub_server import ACCEPTED, INVALID, commit_of, local_hub

COLUMNS = {"problem": "question", "solution": "label", "answer": "label"}


@pytest.fixture
def served(tmp_path, monkeypatch):
    with local_hub(tmp_path, monkeypatch) as root:
        yield root


def write_repository(root, hub_id="org/sums", **labels):
    """Writes a data set with the splits train and test for each branch; `labels` gives the label of their rows."""
    for branch, label in labels.items():
        data = root / "datasets" / hub_id / branch / "data"
        data.mkdir(parents=True)
        for split in ("train", "test"):
            table = pa.table({"question": [f"{split}?"], "label": [label]})
            pyarrow.parquet.write_table(table, data / f"{split}-00000-of-00001.parquet")


def answers(source, split="test"):
    return [(problem.problem, problem.answer) for problem in load(source, split, columns=COLUMNS).problems]


def test_load_reads_hub_revisions(served, monkeypatch):
    write_repository(served, main=2, v1=3)
    assert answers("org/sums") == [("test?", "2")]
    assert answers("org/sums", "train") == [("train?", "2")]
    assert answers("org/sums@v1") == [("test?", "3")]
    assert answers(f"org/sums@{commit_of('main')}") == [("test?", "2")]
    assert load("org/sums@v1", columns=COLUMNS).problems[0].id == "org/sums@v1/train-00000"
    # Without the hub, `datasets` returns the newest version of its cache, whatever the revision.
    monkeypatch.setenv("HF_TOKEN", INVALID)
    assert answers(f"org/sums@{commit_of('v1')}") == [("test?", "3")]
    with pytest.raises(UserError, match=r"newest cached version is another one; check the connection and HF_TOKEN"):
        answers(f"org/sums@{commit_of('main')}")


def test_load_reads_copy_of_repository(served, tmp_path):
    write_repository(served, main=2)
    copy = pathlib.Path(huggingface_hub.snapshot_download("org/sums", repo_type="dataset", local_dir=tmp_path / "copy"))
    assert [answers(str(copy), split) for split in ("train", "test")] == [[("train?", "2")], [("test?", "2")]]
    with pytest.raises(UserError, match=r"no split 'dev' in .*copy; it has train, test; save the rows under that name"):
        answers(str(copy), "dev")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(.*\); give a file, a directory saved by"):
        answers(str(tmp_path / "empty"))


GATED = r"org/gated is gated; accept its license at http://\S+/datasets/org/gated and set HF_TOKEN to a token"


@pytest.mark.parametrize(
    ("source", "token", "message"),
    [
        ("org/gated", "", GATED),
        ("org/gated", "hf_other", GATED),
        ("org/sums@v2", "", r"org/sums has no such revision; give a branch, tag or commit listed at http"),
        ("org/sums@", "", r"'org/sums@' has no revision after '@'"),
        ("org/none", "", r"the hub has no data set org/none, or it is private; check the id, or, .* set HF_TOKEN"),
        ("org/sums", INVALID, r"the hub refuses access \(401\); set HF_TOKEN to a valid token"),
    ],
)
def test_load_explains_refusals(served, monkeypatch, source, token, message):
    write_repository(served, main=2)
    write_repository(served, "org/gated", main=2)
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=message) as caught:
        load(source, "test")
    assert "\n" not in str(caught.value)
    assert not token or token not in str(caught.value)


def test_load_with_accepted_token(served, monkeypatch):
    write_repository(served, "org/gated", main=2)
    monkeypatch.setenv("HF_TOKEN", ACCEPTED)
    assert answers("org/gated") == [("test?", "2")]
    with pytest.raises(UserError, match=r'Unknown split "dev".*; save the rows as Parquet and give the file'):
        answers("org/gated", "dev")


def test_load_refuses_unknown_hub_column(served):
    write_repository(served, main=2)
    with pytest.raises(UserError, match=r"org/sums has no column 'text'.*Known: label, question"):
        load("org/sums", columns={"problem": "text"})
