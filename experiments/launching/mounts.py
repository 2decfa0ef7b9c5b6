"""File systems that a recipe mounts."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

BUCKETS = ("gs://", "s3://")


class Mount(NamedTuple):
    """A file system of the hosts.

    Attributes:
        path: absolute path of the mount on every host.
        source: bucket, such as gs://bucket, or server and directory of an NFS share, such as 10.0.0.2:/share.
    """

    path: str
    source: str

    @property
    def is_bucket(self) -> bool:
        """Whether the source is a bucket, which is mounted through FUSE."""
        return self.source.startswith(BUCKETS)

    @property
    def bucket(self) -> str:
        """Name of the bucket, without its scheme and directories."""
        return self.source.partition("://")[2].partition("/")[0]

    def holds(self, path: str) -> bool:
        """Returns whether a path is below this mount.

        >>> Mount("/mnt/a", "gs://b").holds("/mnt/a/run"), Mount("/mnt/a", "gs://b").holds("/mnt/ab")
        (True, False)
        """
        return pathlib.PurePosixPath(path).is_relative_to(self.path)


def mounts(given: Sequence[str], backend: str) -> list[Mount]:
    """Returns the mounts of `--mount`.

    Args:
        given: PATH=SOURCE, such as /mnt/data=gs://bucket or /mnt/shared=10.0.0.2:/share.
        backend: backend of the launch; SkyPilot mounts buckets only, gcloud buckets of Google Cloud only.

    Raises:
        ValueError: If a value is malformed, or the backend cannot mount the source.

    >>> mounts(["/mnt/shared=10.0.0.2:/share"], "gcloud")
    [Mount(path='/mnt/shared', source='10.0.0.2:/share')]
    """
    found = []
    for text in given:
        path, _, source = text.partition("=")
        mount = Mount(path, source)
        parts = pathlib.PurePosixPath(path)
        if not parts.is_absolute() or ".." in parts.parts or path == "/":
            raise ValueError(f"--mount={text}: the path must be absolute; write /mnt/data=gs://bucket")
        if mount.is_bucket:
            if not mount.bucket or (backend == "gcloud" and not source.startswith("gs://")):
                raise ValueError(f"--mount={text}: {backend} mounts buckets like gs://bucket; give one")
            if backend == "gcloud" and source.rstrip("/") != f"gs://{mount.bucket}":
                raise ValueError(f"--mount={text}: gcloud mounts whole buckets; give gs://{mount.bucket}")
        elif backend == "skypilot":
            raise ValueError(f"--mount={text}: skypilot mounts buckets; write {path}=gs://bucket or s3://bucket")
        elif ":/" not in source or source.startswith(("-", ":")) or "://" in source:
            raise ValueError(f"--mount={text}: give gs://bucket, or an NFS share like 10.0.0.2:/share")
        found.append(mount)
    return found


def check_workdir_mount(found: Sequence[Mount], name: str, workdir: str, backend: str, num_nodes: int = 1) -> None:
    """Checks that a mounted bucket is suitable for a workdir, which is given by the flag `name`.

    The workdir needs durable appends (metrics, records), renames (checkpoints, settings) and a lock that other hosts
    see at once. With gcsfuse, appended data is in the bucket only after the file was closed, and metadata is cached for
    a minute. SkyPilot's cached mounts serve one node, and upload later.

    Source: docs/semantics.md of GoogleCloudPlatform/gcsfuse, commit 007ca45.

    Raises:
        ValueError: If it is not.
    """
    for mount in found:
        if not (mount.is_bucket and mount.holds(workdir)):
            continue
        if backend != "skypilot":
            raise ValueError(
                f"--{name}={workdir} is on the bucket {mount.source}, whose mount delays appends and what other hosts "
                f"see; put it on an NFS share, like --mount=/mnt/shared=10.0.0.2:/share"
            )
        if num_nodes > 1:
            raise ValueError(
                f"--{name}={workdir} is on the bucket {mount.source}, which each of --num_nodes={num_nodes} nodes "
                f"caches; use one node, or a directory that all nodes share"
            )
