"""Reads tables of problems with `datasets`: Parquet files, saved data sets, and repositories in the hub's format."""

import pathlib
from collections.abc import Set
from typing import Any

from mass_jax import hub_access
from mass_jax.errors import UserError, first_line
from mass_jax.tasks.math.sources import OWN, SOURCES, Source, fields_of

# `datasets` and `pyarrow` are imported in functions, since they take seconds to load and verifier workers do not need
# them.

_FIELDS = frozenset().union(*map(fields_of, (OWN, *SOURCES.values())))


def parquet_rows(path: pathlib.Path, more: Set[str] = frozenset()) -> list[dict[str, Any]]:
    """Reads a Parquet file.

    Args:
        path: Parquet file.
        more: Names of columns to read besides the fields of known data sets.

    Returns:
        The rows with their stored values; unused columns are None.

    Raises:
        UserError: If the file cannot be read.
    """
    import pyarrow.parquet

    try:
        return _rows(pyarrow.parquet.read_table(path, partitioning=None), more)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); write the file again, or give another"
        ) from None


def directory_rows(path: pathlib.Path, split: str, more: Set[str] = frozenset()) -> list[dict[str, Any]]:
    """Reads a directory that `datasets` saved, or that has the layout of a repository on the hub.

    Args:
        path: Directory written by `save_to_disk`, or with data files such as `data/test-00000-of-00001.parquet`.
        split: Split to read; ignored for a saved data set without splits.
        more: Names of columns to read besides the fields of known data sets.

    Returns:
        The rows with their stored values; unused columns are None.

    Raises:
        UserError: If the directory cannot be read or has no such split.
    """
    import datasets
    import pyarrow

    names = (datasets.config.DATASETDICT_JSON_FILENAME, datasets.config.DATASET_STATE_JSON_FILENAME)
    try:
        if not any((path / name).exists() for name in names):
            return _rows(_split(datasets.load_dataset(str(path)), split, path), more)
        saved = datasets.load_from_disk(str(path))
        return _rows(_split(saved, split, path) if isinstance(saved, datasets.DatasetDict) else saved, more)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException) as error:
        fix = "give a file, a directory saved by datasets, or a copy of a repository on the hub"
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {fix}") from None


def hub_rows(
    name: str, known: Source | None, split: str, revision: str | None = None, more: Set[str] = frozenset()
) -> list[dict[str, Any]]:
    """Loads a data set from the hub, or from the cache of `datasets`.

    Args:
        name: Id on the hub, or the name of a known data set.
        known: The known data set, or None.
        split: Split to load.
        revision: Branch, tag or commit; None for the default branch.
        more: Names of columns to read besides the fields of known data sets.

    Returns:
        The rows with their stored values; unused columns are None.

    Raises:
        UserError: If the data set or its split does not exist, access is refused, or the hub cannot be reached.
    """
    hub_id = known.hub_id if known else name
    if known is None and name.count("/") != 1:
        raise UserError(f"{name!r} is neither a file nor a hub id; known names: {', '.join(SOURCES)}")
    try:
        commit = _commit(hub_id, revision) if revision else None
        parts = [_part(hub_id, config, split, commit) for config in (known.configs if known else (None,))]
    except UserError:
        raise
    except Exception as error:  # the hub client has no common base class
        shown = f"{hub_id}@{revision}" if revision else hub_id
        raise UserError(f"{shown!r} ({split}) cannot be loaded: {_hub_reason(error, hub_id)}") from None
    return [row for part in parts for row in _rows(part, more)]


def _commit(hub_id: str, revision: str) -> str:
    """Returns the commit of a revision, for which the hub is asked unless the revision is a full commit."""
    import huggingface_hub

    if len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        return revision
    return str(huggingface_hub.HfApi().dataset_info(hub_id, revision=revision).sha)


def _part(hub_id: str, config: str | None, split: str, commit: str | None) -> Any:
    """Loads one configuration of a data set.

    Raises:
        UserError: If `datasets` cannot reach the hub and its newest cached version is not `commit`.
    """
    import datasets

    part = datasets.load_dataset(hub_id, config, split=split, revision=commit, keep_in_memory=False)
    if commit and not all(commit in pathlib.Path(file["filename"]).parts for file in part.cache_files):
        raise UserError(
            f"{f'{hub_id}@{commit}'!r} ({split}) cannot be loaded: the hub refused or was not reached, and the newest "
            f"cached version is another one; check the connection and HF_TOKEN, or give a local copy"
        )
    return part


def _hub_reason(error: Exception, hub_id: str) -> str:
    """Explains why a data set cannot be loaded; `datasets` drops the hub's refusal, so the hub is asked again."""
    import datasets
    import huggingface_hub

    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        try:
            huggingface_hub.HfApi().auth_check(hub_id, repo_type="dataset")
        except Exception as refusal:  # the hub client has no common base class
            return hub_access.reason(refusal, hub_id, "dataset")
    invalid_id = isinstance(error, (huggingface_hub.errors.HFValidationError, UnicodeError))
    if isinstance(error, ValueError) and not invalid_id:  # an unknown split or configuration
        return f"{first_line(error).removesuffix('.')}; save the rows as Parquet and give the file"
    return hub_access.reason(error, hub_id, "dataset")


def _split(saved: Any, split: str, path: pathlib.Path) -> Any:
    if split not in saved:
        fix = "save the rows under that name, or give the Parquet file or directory of one split"
        raise UserError(f"no split {split!r} in {path}; it has {', '.join(map(str, saved))}; {fix}")
    return saved[split]


def _rows(data: Any, more: Set[str]) -> list[dict[str, Any]]:
    """Returns the rows of an Arrow table or a data set."""
    table = data.with_format("arrow")[:] if hasattr(data, "with_format") else data
    names = [name for name in table.column_names if name in _FIELDS or name in more]
    columns = [_values(table.column(name)) for name in names]
    empty = dict.fromkeys(table.column_names)
    return [empty | dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] if names else [empty]


def _values(column: Any) -> list[Any]:
    """Returns the values of an Arrow column; narrow floats keep their type, so that 0.1 does not become 0.100000001."""
    import numpy as np
    import pyarrow

    kind = column.type.value_type if pyarrow.types.is_dictionary(column.type) else column.type
    narrow = {"float": np.float32, "halffloat": np.float16}.get(str(kind))
    values = map(_value, column)
    return [narrow(v) if narrow and isinstance(v, float) else v for v in values]


def _value(scalar: Any) -> Any:
    """Returns the Python value of an Arrow scalar, or the scalar itself, which no field accepts, if there is none."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return scalar
