"""Runs a command in a pod with the variables of a Kubernetes secret, which the pod's service account may read.

python -m experiments.launching.kubernetes_secret NAME -- COMMAND ...
"""

import base64
import json
import os
import pathlib
import ssl
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")


def read(name: str, server: str, account: pathlib.Path = ACCOUNT) -> dict[str, str]:
    """Returns the variables of a secret.

    Args:
        name: name of the secret, in the namespace of the pod.
        server: URL of the Kubernetes API.
        account: directory with the token, namespace and certificate of the service account.

    Raises:
        OSError: If the API cannot be reached or refuses.
        ValueError: If the answer is not a secret.
    """
    namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    token = (account / "token").read_text(encoding="utf-8").strip()
    path = f"/api/v1/namespaces/{urllib.parse.quote(namespace)}/secrets/{urllib.parse.quote(name, safe='')}"
    request = urllib.request.Request(server + path, headers={"Authorization": f"Bearer {token}"})
    secure = server.startswith("https:")
    context = ssl.create_default_context(cafile=str(account / "ca.crt")) if secure else None
    with urllib.request.urlopen(request, timeout=30, context=context) as answer:
        data = json.load(answer).get("data") or {}
    return {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Replaces this process by the command."""
    if len(argv) < 4 or argv[2] != "--":
        raise SystemExit("usage: python -m experiments.launching.kubernetes_secret NAME -- COMMAND ...")
    host = environment.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    address = f"[{host}]" if ":" in host else host
    try:
        found = read(argv[1], f"https://{address}:{port}")
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: the secret {argv[1]!r} cannot be read ({error}); run the action create") from None
    os.execvpe(argv[3], list(argv[3:]), {**environment, **found})


if __name__ == "__main__":
    main(sys.argv)
