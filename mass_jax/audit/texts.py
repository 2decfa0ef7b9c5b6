"""Text storage in the log: full texts, or keyed hashes only.

A plain hash of a short text can be reversed by trying texts, so hashes are keyed; the key stays in LOG.key.
"""

import hmac
import os
import pathlib
import secrets
from typing import Any, Literal

from mass_jax.errors import UserError

Mode = Literal["full", "hash"]


class Texts:
    """Storage of the texts of one log.

    Args:
        log: path of the log; its key lies beside it and is created if missing.
        mode: "full" stores texts, "hash" only their keyed hashes.

    Raises:
        UserError: unknown mode, or a damaged key.
    """

    def __init__(self, log: pathlib.Path, mode: Mode):
        if mode not in ("full", "hash"):
            raise UserError(f"--log_text={mode!r} is unknown; give 'full' or 'hash'")
        self.mode: Mode = mode
        self._key = _read_key(log.with_name(log.name + ".key"))

    def keep(self, text: str) -> Any:
        """Returns what the log stores for a text."""
        return text if self.mode == "full" else {"hmac_sha256": self.digest(text)}

    def digest(self, text: str) -> str:
        """Returns the keyed hash (HMAC-SHA-256) of a text."""
        return hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()

    def matches(self, kept: Any, text: str) -> bool:
        """Returns whether a text equals the one stored as `kept`."""
        if isinstance(kept, dict):
            return hmac.compare_digest(str(kept.get("hmac_sha256")), self.digest(text))
        return kept == text


def _read_key(path: pathlib.Path) -> bytes:
    """Reads the key, readable by its owner only; the first process creates it atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails if another process was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 32:
        raise UserError(f"{path} is not a key of 64 hexadecimal digits; restore the original file")
    return key
