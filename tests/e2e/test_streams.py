"""Standard streams of real processes with closed, full and ASCII-only output."""

import json
import subprocess
import sys
import textwrap

import pytest

from experiments import streams

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def shell(environment):
    """Runs a bash script in which `$PROGRAM` is a guarded Python program."""

    def run(script, code="", **changes):
        program = "from experiments import streams\nwith streams.guarded():\n" + textwrap.indent(code or "pass", "    ")
        given = {"env": environment | {"PYTHON": sys.executable, "PROGRAM": program} | changes, "timeout": 300}
        return subprocess.run(["bash", "-c", script], **given, capture_output=True, text=True, check=False)

    return run


LONG = "for i in range(100_000):\n    print('line', i)"
STATUS = '"$PYTHON" -c "$PROGRAM"; echo $? > status'


def test_closed_pipe_ends_quietly(shell, tmp_path):
    done = shell(f"cd {tmp_path}; ({STATUS}) | head -n 2", LONG)
    assert done.stdout == "line 0\nline 1\n"
    assert done.stderr == ""
    assert (tmp_path / "status").read_text() == "141\n"


def test_closed_pipe_is_detected_at_exit(shell, tmp_path):
    """A short text stays in a buffer until the interpreter exits."""
    done = shell(f"cd {tmp_path}; (sleep 0.2; {STATUS}) | true", "print('short')", PYTHONUNBUFFERED="")
    assert (done.stderr, (tmp_path / "status").read_text()) == ("", "141\n")


def test_closed_pipe_keeps_error_status(shell, tmp_path):
    done = shell(
        f"cd {tmp_path}; (sleep 0.2; {STATUS}) | true", "print('short')\nraise SystemExit(3)", PYTHONUNBUFFERED=""
    )
    assert (done.stderr, (tmp_path / "status").read_text()) == ("", "3\n")


def test_closed_pipe_bypasses_file_error_handlers(shell, tmp_path):
    code = "import sys\ntry:\n    print('x', flush=True)\nexcept OSError:\n    print('caught', file=sys.stderr)"
    done = shell(f"cd {tmp_path}; (sleep 0.2; {STATUS}) | true", code)
    assert (done.stderr, (tmp_path / "status").read_text()) == ("", "141\n")


def test_own_broken_pipe_is_not_hidden(shell):
    done = shell('"$PYTHON" -c "$PROGRAM"', "raise BrokenPipeError('of a worker')")
    assert done.returncode == 1
    assert "BrokenPipeError: of a worker" in done.stderr


def test_full_output_prints_one_line(shell):
    done = shell('"$PYTHON" -c "$PROGRAM" > /dev/full', "print('x')")
    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device; files already written are kept\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_descriptor_is_not_reused(shell, closed, tmp_path):
    """Without the repair, the next opened file would get the number and receive the messages of compiled code."""
    code = (
        "import os, sys\n"
        f"with open({str(tmp_path / 'file')!r}, 'wb', 0) as file:\n"
        "    file.write(b'data')\n"
        "    print('out')\n"
        "    print('err', file=sys.stderr)\n"
        "    for number in (1, 2):\n"
        "        os.write(number, b'from compiled code')\n"
        "    sys.stderr.isatty(), sys.stdin.read(0)"
    )
    done = shell(f'"$PYTHON" -c "$PROGRAM" {closed}', code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b"data"


def test_closed_descriptor_is_open_in_child(shell):
    code = "import subprocess\nraise SystemExit(subprocess.run(['bash', '-c', 'echo x; echo y >&2']).returncode)"
    assert shell('"$PYTHON" -c "$PROGRAM" >&- 2>&-', code).returncode == 0


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1:strict"}])
def test_unencodable_characters_are_escaped(shell, environment):
    done = shell('"$PYTHON" -c "$PROGRAM"', "print('\\u0416', '\\ud800')", **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\u0416 \\ud800\n", "")


def test_chosen_error_handler_is_kept(shell):
    done = shell('"$PYTHON" -c "$PROGRAM"', "print('\\u0416')", PYTHONIOENCODING="ascii:replace")
    assert done.stdout == "?\n"


def test_guarded_restores_standard_output():
    before = sys.stdout
    with pytest.raises(SystemExit) as caught, streams.guarded():
        print("x")
    assert caught.value.code is None
    assert sys.stdout is before


def test_command_survives_closed_pipe(shell, tmp_path):
    done = shell(f'cd {tmp_path}; ("$PYTHON" -m experiments.train --print_config; echo $? > status) | true')
    assert (done.stderr, (tmp_path / "status").read_text()) == ("", "141\n")


def test_solve_keeps_answers_without_reader(shell, tmp_path):
    """Both streams are closed; the answers are in --out."""
    rows = [{"id": f"ü{i}", "problem": f"{i} kabo 1"} for i in range(3)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = '"$PYTHON" -m experiments.solve --model=tiny --no_adapt --input=q.jsonl --batch=2 --out=a.jsonl'
    done = shell(f"cd {tmp_path}; ({command} 2>&1; echo $? > status) | true")
    assert (done.stderr, (tmp_path / "status").read_text()) == ("", "0\n")
    answers = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == ["ü0", "ü1", "ü2"]


def test_solve_stops_when_reader_exits(shell, tmp_path):
    rows = [{"problem": f"{i % 10} obak {i // 10}"} for i in range(24)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = '"$PYTHON" -m experiments.solve --model=tiny --no_adapt --input=q.jsonl --batch=2'
    done = shell(f"cd {tmp_path}; ({command}; echo $? > status) | head -n 1", **ASCII)
    assert json.loads(done.stdout)["problem"] == "0 obak 0"
    assert "Traceback" not in done.stderr
    assert (tmp_path / "status").read_text() == "141\n"


def test_argument_outside_encoding_prints_one_line(shell):
    done = shell('"$PYTHON" -m experiments.train --workdir="$NAME"', NAME="läufe", **ASCII)
    assert done.returncode == 2
    assert done.stderr.endswith("is not ascii text; set PYTHONUTF8=1 or LC_ALL=C.UTF-8\n")
    assert done.stderr.count("\n") == 1


def test_commands_drop_library_messages(environment):
    """A run without JAX_PLATFORMS on a machine without a TPU: JAX reports each absent backend as information."""
    script = (
        "import jax; from absl import logging; from experiments import settings\n"
        "def main(_):\n"
        "    logging.info('own message'); jax.devices()\n"
        "settings.run(main)"
    )
    environment = {name: value for name, value in environment.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "own message" in line
