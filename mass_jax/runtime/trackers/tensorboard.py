"""TensorBoard event files, written with the package tensorboard; TensorFlow and torch are not needed."""

import importlib
import json
import pathlib
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mass_jax.runtime.trackers.base import Run, literal, markdown

PNG_SIZE = slice(16, 24)  # width and height in the header of a PNG file


class TensorBoard:
    """One event file. Steps of an earlier process that this one repeats are purged, as TensorBoard defines it.

    Args:
        run: the run; files are written to its directory "tensorboard".
    """

    def __init__(self, run: Run):
        module = importlib.import_module
        self._event_pb2 = module("tensorboard.compat.proto.event_pb2")
        self._summary_pb2 = module("tensorboard.compat.proto.summary_pb2")
        self._text_pb = module("tensorboard.plugins.text.summary_v2").text_pb
        record_writer = module("tensorboard.summary.writer.record_writer")
        directory = run.directory / "tensorboard"
        directory.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a directory in the order of their names.
        path = directory / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}"
        self._file = path.open("xb")
        # This writer reports errors where they happen; EventFileWriter does so in a thread, with a traceback.
        self._records = record_writer.RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self.first_step = run.next_step if run.resumed else 0
        start = self._event_pb2.SessionLog(status=self._event_pb2.SessionLog.START)
        self._write(step=self.first_step, session_log=start)
        if not run.resumed:
            self.text("config", json.dumps(dict(run.settings), indent=2))
        self._file.flush()

    def _write(self, **fields: Any) -> None:
        """Writes one event."""
        self._records.write(self._event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the scalars of a step, and flushes them."""
        summary = self._summary_pb2.Summary
        found = [summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=summary(value=found))
        self._file.flush()

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table as Markdown."""
        self._write(step=0, summary=self._text_pb(name, markdown(rows)))

    def figure(self, name: str, path: pathlib.Path) -> None:
        """Writes the bytes of a PNG file."""
        encoded = path.read_bytes()
        width, height = struct.unpack(">II", encoded[PNG_SIZE])
        summary = self._summary_pb2.Summary
        image = summary.Image(encoded_image_string=encoded, width=width, height=height, colorspace=3)
        self._write(step=0, summary=summary(value=[summary.Value(tag=name, image=image)]))

    def text(self, name: str, text: str) -> None:
        """Writes text as a code block."""
        self._write(step=0, summary=self._text_pb(name, literal(text)))

    def close(self, failed: bool) -> None:
        """Closes the file."""
        self._file.close()
