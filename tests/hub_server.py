"""HTTP server that answers the requests of `huggingface_hub` for local repositories, and refuses as the hub does.

Repositories are directories `models/org/name/revision` and `datasets/org/name/revision`. Those whose name starts with
"gated" can be listed by everybody, but their files need a token whose account has accepted the license.
"""

import contextlib
import functools
import hashlib
import http.server
import json
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

ACCEPTED, INVALID = "hf_accepted", "hf_invalid"
"""Token of an account that accepted all licenses, and a token that does not exist."""
URL_TEMPLATE = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)


def commit_of(revision: str) -> str:
    """Returns the commit of a branch of a served repository."""
    return hashlib.sha1(revision.encode()).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests for the repositories under `root`."""

    def __init__(self, root: pathlib.Path, *args: object):
        self._root = root
        super().__init__(*args)

    def log_message(self, *args: object) -> None:
        """Logs nothing."""

    def do_HEAD(self) -> None:
        """Answers like GET, without the content."""
        self.do_GET()

    def do_POST(self) -> None:
        """Answers the request for the metadata of some paths."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else urllib.parse.parse_qs(body)["paths"]
        self._answer(paths)

    def do_GET(self) -> None:
        """Answers the request for a repository's metadata, its list of files, or a file."""
        self._answer()

    def _answer(self, paths: list[str] | None = None) -> None:
        parts = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/").split("/")
        api = parts[0] == "api"
        kind = parts.pop(1 if api else 0) if parts[api] in ("models", "datasets") else "models"
        repository, rest = "/".join(parts[api : api + 2]), parts[api + 2 :]
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        action, revision = (*rest, "main", "main")[:2] if rest else ("revision", "main")
        if token == INVALID:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if not (self._root / kind / repository).is_dir():
            return self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        gated = repository.partition("/")[2].startswith("gated")
        if gated and action in ("resolve", "auth-check") and token != ACCEPTED:
            return self._refuse(403 if token else 401, "GatedRepo", f"Access to {repository} is restricted.")
        branches = {path.name: path for path in (self._root / kind / repository).iterdir()}
        found = next((name for name in branches if revision in (name, commit_of(name))), None)
        if found is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self._serve(action, repository, branches[found], rest[2:], paths)

    def _serve(
        self, action: str, repository: str, directory: pathlib.Path, inside: list[str], paths: list[str] | None
    ) -> None:
        commit = commit_of(directory.name)
        below = sorted(directory.joinpath(*inside).rglob("*") if action == "tree" else directory.rglob("*"))
        entries = [_entry(path, directory) for path in below]
        if action == "resolve":
            file = directory.joinpath(*inside)
            if not file.is_file():
                return self._refuse(404, "EntryNotFound", "Entry not found")
            etag = f'"{hashlib.sha1(file.read_bytes()).hexdigest()}"'
            return self._send(file.read_bytes(), {"X-Repo-Commit": commit, "ETag": etag})
        if action == "tree":
            return self._send(json.dumps(entries).encode())
        if action == "paths-info":
            return self._send(json.dumps([entry for entry in entries if entry["path"] in (paths or ())]).encode())
        siblings = [{"rfilename": entry["path"]} for entry in entries if entry["type"] == "file"]
        return self._send(json.dumps({"id": repository, "sha": commit, "siblings": siblings, "tags": []}).encode())

    def _send(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(json.dumps({"error": message}).encode(), headers, status)


def _entry(path: pathlib.Path, directory: pathlib.Path) -> dict[str, object]:
    oid = hashlib.sha1(str(path).encode()).hexdigest()
    size = path.stat().st_size if path.is_file() else 0
    kind = "file" if path.is_file() else "directory"
    return {"type": kind, "oid": oid, "size": size, "path": path.relative_to(directory).as_posix()}


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[str]:
    """Serves the repositories under `root`; yields the endpoint."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, root)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def local_hub(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Makes the hub clients of this process load from a local hub, with an empty cache.

    Args:
        directory: directory for the repositories and the cache.
        monkeypatch: restores the settings of the clients.

    Yields:
        Directory of the repositories.
    """
    root, cache = directory / "served", directory / "cache"
    root.mkdir()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache / "datasets")
    with serve(root) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + URL_TEMPLATE)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
        yield root
