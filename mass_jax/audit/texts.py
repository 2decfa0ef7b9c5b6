"""Texts in the log: as they are, or only as keyed hashes.

A plain hash of "4 kabo 3" is found by trying; one under a key that stays with the operator (LOG.key) is not.
"""

import hmac
import os
import pathlib
import secrets
from typing import Any, Literal

from mass_jax.errors import UserError

Mode = Literal["full", "hash"]


class Texts:
    """How the texts of one log are kept.

    Args:
        log: the log's path; the key lies beside it and is made if absent.
        mode: "full" keeps texts, "hash" their keyed hashes only.
    """

    def __init__(self, log: pathlib.Path, mode: Mode):
        if mode not in ("full", "hash"):
            raise UserError(f"--log_text={mode!r} is unknown; give 'full' or 'hash'")
        self.mode: Mode = mode
        self._key = _read_key(log.with_name(log.name + ".key"))

    def keep(self, text: str) -> Any:
        """What the log gets of a text."""
        return text if self.mode == "full" else {"hmac_sha256": self.digest(text)}

    def digest(self, text: str) -> str:
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def matches(self, kept: Any, text: str) -> bool:
        """Whether a text is the one that the log kept."""
        if isinstance(kept, dict):
            return hmac.compare_digest(str(kept.get("hmac_sha256")), self.digest(text))
        return kept == text


def _read_key(path: pathlib.Path) -> bytes:
    """The key in a file that only its owner reads; made as a whole by whoever comes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 32:
        raise UserError(f"{path} cannot be read as a key of 64 hexadecimal digits; put the right one back")
    return key
