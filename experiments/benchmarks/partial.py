"""Resumable measurements: each part is saved before the next one begins."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from mass_jax import runtime
from mass_jax.errors import UserError


class Parts:
    """Results by name in a JSON file, from which a rerun of the same measurement resumes.

    Args:
        path: the file; it exists next to the final results until `finish`.
        header: description of the measurement; must match that of an existing file.
        stop: polled before and after every part.

    Raises:
        UserError: If the file contains parts of another measurement, or is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory) / "parts.json"
    ...     first = Parts(path, {"size": 3}).of("sum", lambda: 0 + 1 + 2)
    ...     again = Parts(path, {"size": 3}).of("sum", lambda: 1 / 0)
    >>> first, again
    (3, 3)
    """

    def __init__(self, path: pathlib.Path, header: Mapping[str, Any], stop: runtime.Stop | None = None):
        self._path, self._header, self.stop = path, dict(header), stop or runtime.Stop()
        self._parts: dict[str, Any] = {}
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            header, parts = found["header"], found["parts"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged; remove it to start over") from None
        if header != self._header:
            raise UserError(f"{path} holds parts of another measurement ({header}); remove it, or give another --out")
        self._parts = parts

    def of(self, name: str, measure: Callable[[], Any]) -> Any:
        """Returns a part; measures and saves it first if it is not finished.

        Raises:
            runtime.Interrupted: If a stop was requested; finished parts are saved.
        """
        if name not in self._parts:
            self.stop.poll()
            self.keep(name, measure())
            logging.info("%s: %s", name, self._parts[name])
            self.stop.poll()
        return self._parts[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a finished part, or the default."""
        return self._parts.get(name, default)

    def keep(self, name: str, value: Any) -> None:
        """Saves a part."""
        self._parts[name] = value
        text = json.dumps({"header": self._header, "parts": self._parts}, indent=1) + "\n"
        runtime.write_atomically(self._path, text)

    def finish(self) -> None:
        """Removes the file, once the results are saved elsewhere."""
        self._path.unlink(missing_ok=True)
