"""Serves a model over HTTP that first adapts itself to each question, with a page for browsers.

    python -m experiments.audit policy > runs/tiny/policy.json
    python -m experiments.serve --workdir=runs/tiny
    curl -N http://127.0.0.1:8000/v1/answers -H 'Content-Type: application/json' -d '{"problem": "4 kabo 3"}'

The first command writes the policy, without which nothing is adapted; review and edit it. Every adaptation is recorded
in WORKDIR/audit/events.jsonl before its answer is released. Ctrl-C or SIGTERM answers what was accepted, then exits.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable

from absl import flags, logging

from experiments import service_flags, settings
from mass_jax import runtime

FLAGS = flags.FLAGS


def define() -> None:
    """Defines the flags of this command."""
    service_flags.define()
    flags.adopt_module_key_flags(service_flags)
    flags.DEFINE_integer("batch", 4, "Questions per batch; smaller batches are padded to it.", lower_bound=1)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; others than this machine's own need --hosts.")
    flags.DEFINE_integer("port", 8000, "Port to listen on; 0 chooses a free one.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_list("hosts", [], "Host names under which clients reach this server; by default this machine's own.")
    flags.DEFINE_integer("queue", 64, "Largest number of waiting questions; more get status 429.", lower_bound=1)
    flags.DEFINE_integer("max_body", 65536, "Largest body of a request, in bytes.", lower_bound=64)
    flags.DEFINE_float("grace", 30.0, "Seconds for answering waiting questions when stopped.", lower_bound=0)


def main(_: list[str]) -> None:
    """Runs the command."""
    settings.guarded(run)


def run(stop: runtime.Stop) -> None:
    """Serves until a signal arrives."""
    from mass_jax.serving.web import app, security, server

    with server.listen(FLAGS.host, FLAGS.port) as listening, service_flags.open_service() as service:
        hosts = (*security.LOOPBACK, FLAGS.host, *FLAGS.hosts)
        limits = app.Limits(FLAGS.queue, FLAGS.max_body)
        served = app.AnswerApp(service, limits, [name.lower() for name in hosts])
        connections = FLAGS.queue + FLAGS.batch + server.SPARE_CONNECTIONS
        running = server.AnswerServer(served, listening, connections, FLAGS.grace, on_signal(stop, service.log_path))
        with running.on_signals():
            stop.poll()
            print(f"serving {service.setup.label} on {server.url_of(listening)}", flush=True)
            running.run()
            served.close()
        logging.info("%d questions answered; the log is %s", served.queue.answered, service.log_path)


def on_signal(stop: runtime.Stop, log: pathlib.Path | None) -> Callable[[int], None]:
    """Returns a signal handler that requests a stop, and ends the process at the second signal."""

    def handle(signum: int) -> None:
        try:
            stop.request(signum)
        except KeyboardInterrupt:  # in the event loop it would end open requests with tracebacks
            with contextlib.suppress(OSError):  # stderr may be closed
                os.write(2, os.fsencode(f"stopped at once; every released answer is in the log {log}\n"))
            os._exit(130)

    return handle


if __name__ == "__main__":
    define()
    settings.run(main)
