"""A vLLM server as a process, on the CPU."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

READY = 400.0  # seconds until a server must answer; on two cores of a busy machine, one took 90
# As in docs/guides/vllm.md. Few adapters at a time make a request wait for those of others.
OPTIONS = (
    "--dtype=float32 --logprobs-mode=processed_logprobs --generation-config=vllm --enable-lora --max-lora-rank=32 "
    "--max-loras=2 --max-cpu-loras=8"
)
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default is a share of the machine's memory
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@contextlib.contextmanager
def serving(python, model, log):
    """Context in which a server of a model directory is ready; gives the address of its API.

    Args:
        python: Python of an environment with vLLM.
        model: the directory.
        log: file for the server's output.

    Raises:
        AssertionError: the server ends before it is ready, or is not ready in time; with the end of its output.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}", f"--port={port}"]
    command += ["--host=127.0.0.1", *OPTIONS.split()]
    # The project's modules and the compiler flags of the tests are not for another environment's process.
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=inherited | ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(process)


def _wait(process, address, log):
    deadline = time.monotonic() + READY
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.5)
    state = "is not ready in time" if process.returncode is None else f"ended with status {process.returncode}"
    raise AssertionError(f"vLLM {state}; its output ends with:\n{log.read_text(errors='replace')[-4000:]}")


def _end(process):
    """Ends the processes of a server, which has one for its engine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
