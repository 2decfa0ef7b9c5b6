"""Tests for the variables of a launched command, and for reading them from a Kubernetes secret."""

import base64
import http.server
import json
import subprocess
import sys
import threading

import pytest

from experiments.launch import run_together
from experiments.launching.environment import variables
from experiments.launching.kubernetes_secret import main, read


def test_variables_reads_both_flags(tmp_path):
    path = tmp_path / "env"
    path.write_text("# comment\n\nexport A='x \"y'\nB=a=b # c\nC\nD=\n")
    assert variables(["B=2", "E=' '"], str(path), {"C": "3"}) == {
        "A": 'x "y',
        "B": "2",
        "C": "3",
        "D": "",
        "E": "' '",
    }


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("hf_x # mine", "hf_x"),
        ("hf_x\t#mine # again", "hf_x"),
        ("a#b", "a#b"),
        ("#a", "#a"),
        (" # mine", ""),
        ("'a # b'", "a # b"),
        ("'a # b' # it's mine", "a # b"),
        ("'a'b' ", "a'b"),
        ("'a", "'a"),
        ("'", "'"),
    ],
)
def test_env_file_values_end_before_a_comment(tmp_path, line, value):
    path = tmp_path / "env"
    path.write_text(f"A={line}\n")
    assert variables([], str(path)) == {"A": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf_secret-value", "--env: not NAME=VALUE or NAME"),
        ("A-B=secret", "--env: not NAME=VALUE or NAME"),
        ("=secret", "--env: not NAME=VALUE or NAME"),
        ("1A=secret", "--env: not NAME=VALUE or NAME"),
        ("PATH=secret", "--env: PATH belongs to the shell"),
        ("ABSENT", "--env: ABSENT is not set in this environment; export it, or give ABSENT=VALUE"),
        ("A=secret\0", "--env: the value of A has a null character"),
    ],
)
def test_variables_never_prints_a_value(text, message):
    with pytest.raises(ValueError) as caught:
        variables([text], environment={})
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


def test_variables_names_file_and_line(tmp_path):
    path = tmp_path / "env"
    path.write_text("A=1\nsecret value\n")
    with pytest.raises(ValueError, match=r"env, line 2: not NAME=VALUE") as caught:
        variables([], str(path))
    assert "secret" not in str(caught.value)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="it is not UTF-8 text; give a file with NAME=VALUE lines"):
        variables([], str(path))


def test_local_processes_get_the_variables():
    program = [sys.executable, "-c", "import os; exit(os.environ['PASSED_ON'] != 'a b')"]
    assert run_together([program, program], {"PASSED_ON": "a b"}) == 0
    assert run_together([program], {"PASSED_ON": "c"}) == 1


class Api(http.server.BaseHTTPRequestHandler):
    """Kubernetes' API with one secret."""

    def do_GET(self):
        known = self.path == "/api/v1/namespaces/team/secrets/mass-environment"
        allowed = known and self.headers["Authorization"] == "Bearer token"
        self.send_response(200 if allowed else 403)
        self.end_headers()
        if allowed:
            data = {"HF_TOKEN": base64.b64encode("hf_'\n☃".encode()).decode()}
            self.wfile.write(json.dumps({"kind": "Secret", "data": data}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Api) as api:
        threading.Thread(target=api.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{api.server_port}"
        api.shutdown()


@pytest.fixture
def account(tmp_path):
    (tmp_path / "namespace").write_text("team\n")
    (tmp_path / "token").write_text("token\n")
    return tmp_path


def test_secret_is_read_from_the_api(server, account):
    assert read("mass-environment", server, account) == {"HF_TOKEN": "hf_'\n☃"}
    with pytest.raises(OSError, match="403"):
        read("../other", server, account)


def test_command_outside_of_a_pod_ends_with_one_line():
    command = [sys.executable, "-m", "experiments.launching.kubernetes_secret", "name", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the secret 'name' cannot be read (")
    assert done.stderr.count("\n") == 1
    with pytest.raises(SystemExit, match="usage"):
        main(["kubernetes_secret", "name", "true"])
