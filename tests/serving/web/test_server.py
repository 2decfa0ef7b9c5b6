"""The HTTP server over real sockets: answers, refusals, load, disconnects, failures, stops and the page."""

import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import threading
import time

import jax
import numpy as np
import pytest

from experiments.stress import serve_load
from mass_jax.audit import log
from mass_jax.audit.texts import Texts
from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig, weights
from mass_jax.serving import loading
from mass_jax.serving.batch import PHASES
from mass_jax.serving.guards import policy
from mass_jax.serving.web import app, server
from tests.commands import in_process
from tests.serving.web.browser import CHROMIUM, Browser
from tests.serving.web.conftest import JSON, events_in, serving_at

PROBLEM = "4 kabo 3"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>\u202eabc"
ASK = """(async () => {
  document.getElementById('problem').value = %s;
  document.getElementById('ask').requestSubmit();
  const status = document.getElementById('status');
  while (!(status.textContent === 'done' || status.className === 'bad'))
    await new Promise((resolve) => setTimeout(resolve, 20));
  const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
  return JSON.stringify({title: document.title, status: texts('#status')[0], values: texts('dd'), head: texts('th'),
    cells: texts('td'), scripts: document.scripts.length, images: document.images.length});
})()"""


def test_answer_streams_progress_and_event(serve, records):
    with serve() as client:
        status, headers, events = client.post({"problem": PROBLEM, "id": "a"})
        (record,) = records("adaptation")
        again = client.post({"problem": PROBLEM, "id": "a"})[2]
        at_once = client.answer(PROBLEM, "a")
        fresh = client.answer(PROBLEM)
        path = f"/v1/events/{events[-1][1]['event']}"
        found = client.request("GET", path)
        wrong = [client.request("GET", path[:-1] + "g")[0], client.request("GET", f"/v1/events/{record['number']}")[0]]
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert [name for name, _ in events] == ["accepted", *["progress"] * len(PHASES), "answer"]
    assert [row["phase"] for name, row in events if name == "progress"] == list(PHASES)
    answer = events[-1][1]
    assert (answer["id"], answer["text"], answer["before"]) == ("a", record["answer"], record["before"])
    assert (answer["event"], answer["recorded"]) == (f"{record['number']}:{record['hash']}", False)
    assert [name for name, _ in again] == ["answer"]
    assert again[0][1]["event"] == at_once["event"] == answer["event"]
    assert again[0][1]["recorded"]
    assert fresh["event"] != answer["event"]
    assert json.loads(found[2]) == {key: value for key, value in record.items() if key != "prev"}
    assert wrong == [404, 404]
    assert len(records("adaptation")) == 2


REFUSED = [
    (b"4 kabo 3", {"Content-Type": "text/plain"}, 415, "send application/json"),
    (b"{}", {"Content-Encoding": "gzip"}, 415, "without a content encoding"),
    (b'{"problem": "\xff"}', {}, 400, "not UTF-8 (byte 13)"),
    (b"", {}, 400, "not JSON (empty)"),
    (b'{"problem": "4 kabo 3"', {}, 400, "the text ends inside a value"),
    (b"[" * 4000, {}, 400, "nested too deeply"),
    (b'["4 kabo 3"]', {}, 400, "the body is an array"),
    (b'{"problem": "1", "problem": "2"}', {}, 400, "occurs more than once"),
    (b'{"problem": "1", "problems\\n": "2"}', {}, 400, "is unknown"),
    (b'{"id": "1"}', {}, 400, "'problem' is null"),
    (b'{"problem": "1", "id": true}', {}, 400, "'id' is a boolean"),
    (b'{"problem": "1", "id": "\\u202e"}', {}, 400, "printable characters"),
    (b'{"problem": "1", "stream": 1}', {}, 400, "'stream' is a number"),
    (b'{"problem": "\\ud800"}', {}, 422, "not valid Unicode"),
    (b'{"problem": "%s"}' % (b"1 " * 100), {}, 422, "is longer than max_prompt_tokens=8"),
    (b'{"problem": "%s"}' % (b"1 " * 3000), {}, 413, "longer than 4096 bytes"),
    (b"{}", {"Content-Length": "9999"}, 413, "longer than 4096 bytes"),
    (b'{"problem"', {"Content-Length": "100"}, 408, "did not arrive within 0.5 s"),
    (b"{}", {"Host": "example.org"}, 421, "not 'example.org'; use 127.0.0.1, or start it with --hosts"),
]


def test_bad_requests_get_one_line(serve, records):
    with serve() as client:
        for body, headers, wanted, message in REFUSED:
            status, found, text = client.request("POST", "/v1/answers", body, JSON | headers)
            assert (status, list(json.loads(text)), text.count("\n")) == (wanted, ["error"], 1), text
            assert message in json.loads(text)["error"]
            assert found["x-content-type-options"] == "nosniff"
        chunked = client.request(
            "POST", "/v1/answers", (b" " * 1000 for _ in range(9)), {"Content-Type": "application/json"}
        )
        statuses = [
            client.request(*given)[0] for given in (("PUT", "/"), ("GET", "/nowhere"), ("OPTIONS", "/v1/answers"))
        ]
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.sendall(b"\x00\xff\r\n\r\n")
            head, body = raw.makefile("rb").read().split(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"x-content-type-options: nosniff" in head.lower()
            assert json.loads(body) == {"error": "Invalid HTTP request received."}
        assert client.health() == (200, {"status": "ok", "waiting": 0, "limit": 8, "answered": 0})
    assert chunked[0] == 413
    assert statuses == [405, 404, 405]
    assert records("adaptation") == []


def test_page_allows_its_own_script_only(serve):
    with serve() as client:
        status, headers, text = client.request("GET", "/")
        kinds = [client.request("GET", f"/{name}")[1]["content-type"] for name in ("page.js", "page.css")]
    assert status == 200
    assert "<script src=" in text
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"):
        assert rule in headers["content-security-policy"]
    assert not {name for name in headers if name.startswith("access-control") or name in ("set-cookie", "server")}
    assert kinds == ["text/javascript; charset=utf-8", "text/css; charset=utf-8"]


def test_full_queue_refuses_with_retry_after(serve, writer, records):
    with serve(queue=2) as client:
        with writer.paused():
            first = client.start("1 kabo 1")
            assert writer.entered.wait(60)
            waiting = [client.start(f"{i} kabo 2") for i in range(2)]
            assert client.health()[1]["waiting"] == 2
            status, headers, row = client.post({"problem": PROBLEM})
            assert (status, "2 questions are waiting" in row["error"]) == (429, True)
            assert 1 <= int(headers["retry-after"]) <= 600
        answers = [events_in("event: accepted\n" + response.read().decode())[-1] for response in (first, *waiting)]
        assert client.answer(PROBLEM)["decision"]
    assert [name for name, _ in answers] == ["answer"] * 3
    events = {f"{record['number']}:{record['hash']}": record for record in records("adaptation")}
    assert {row["event"] for _, row in answers} <= events.keys()
    assert [record["batch"]["slot"] for record in events.values()] == [0, 0, 1, 0]  # the waiting ones share a batch
    assert {record["batch"]["size"] for record in events.values()} == {4}


def test_id_is_answered_once_at_a_time(serve, writer):
    with serve() as client, contextlib.ExitStack() as stack:
        stack.enter_context(writer.paused())
        thread = threading.Thread(target=client.answer, args=(PROBLEM, "same"))
        thread.start()
        assert writer.entered.wait(60)
        status, headers, row = client.post({"problem": "1 lepa 1", "id": "same"})
        stack.close()
        thread.join()
        assert (status, row["error"]) == (409, "the id 'same' is being answered; wait for it")
        assert "retry-after" in headers
        assert client.answer(PROBLEM, "same")["recorded"]


@pytest.mark.parametrize("stream", [True, False])
def test_disconnected_client_gives_up_waiting_question(serve, writer, records, stream):
    with serve() as client:
        with writer.paused():
            first = client.start("1 kabo 1")
            assert writer.entered.wait(60)
            gone = client.connect()
            gone.request("POST", "/v1/answers", json.dumps({"problem": "2 kabo 2", "stream": stream}), JSON)
            client.wait_for(waiting=1)
            last = client.start("3 kabo 3")
            gone.close()
            time.sleep(0.3 if stream else app.CHECK_SECONDS + 0.3)  # until the server notices
        for response in (first, last):
            assert b"event: answer" in response.read()
    assert [(record["problem"], record["reason"]) for record in records("unanswered")] == [
        ("2 kabo 2", "the client disconnected")
    ]
    assert [record["problem"] for record in records("adaptation")] == ["1 kabo 1", "3 kabo 3"]


def test_connections_without_request_are_closed(serve):
    with serve() as client, contextlib.ExitStack() as stack:

        def connect(sent):
            connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
            connection.sendall(sent)
            return stack.enter_context(connection)

        kept = client.connect()
        stack.enter_context(contextlib.closing(kept))
        kept.request("GET", "/healthz")
        assert kept.getresponse().read()
        idle = [connect(b"" if i % 2 else b"GET /healthz HTTP/1.1\r\nHo") for i in range(31)]
        with contextlib.closing(client.connect()) as refused:
            refused.connect()
            response = http.client.HTTPResponse(refused.sock)
            response.begin()
            assert (response.status, json.load(response)["error"]) == (503, "too many connections; try again later")
            assert response.headers["x-frame-options"] == "DENY"
        kept.sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert [connection.recv(1) for connection in idle] == [b""] * 31  # after 0.5 s
        assert kept.sock.recv(1) == b""
        assert client.health()[0] == 200
        rest = connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        assert rest.recv(1000).startswith(b"HTTP/1.1 200 ")
        rest.sendall(b"1")  # ends uvicorn's time between requests
        while rest.recv(1000):
            pass


@pytest.mark.parametrize("grace", [0.0, 30.0])
def test_stop_loses_no_question(serve, writer, records, grace):
    with serve(grace=grace) as client:
        with writer.paused():
            first = client.start("1 kabo 1")
            assert writer.entered.wait(60)
            second = client.start("2 kabo 2")
            client.server.stop()
            client.wait_for(status="stopping")
            assert client.health()[0] == 503
            status, headers, _ = client.post({"problem": PROBLEM})
            assert (status, headers["retry-after"]) == (503, "10")
            if not grace:
                client.wait_for(waiting=0)
        assert b"event: answer" in first.read()
        assert (b"event: answer" if grace else b'"error": "the server stopped"') in second.read()
    kinds = [(record["kind"], record["problem"]) for kind in ("adaptation", "unanswered") for record in records(kind)]
    assert kinds == [("adaptation", "1 kabo 1"), ("adaptation" if grace else "unanswered", "2 kabo 2")]


def test_failed_batch_is_recorded_and_survived(serve, writer, records):
    with serve() as client:
        writer.texts = ValueError("secret")
        try:
            status, headers, row = client.post({"problem": PROBLEM, "stream": False})
        finally:
            writer.texts = None
        assert (status, row, headers["retry-after"]) == (503, {"error": "the server failed (ValueError)"}, "10")
        assert client.answer(PROBLEM)["event"]
    assert [record["reason"] for record in records("unanswered")] == ["the server failed (ValueError)"]


def test_changed_weights_end_all_answers(service, tmp_path):
    path = tmp_path / "events.jsonl"
    setup = dataclasses.replace(service.setup, identity=service.setup.identity | {"weights": "0" * 64})
    other = loading.AdaptationService(setup, log.EventLog(path), Texts(path, "full"), policy.Ledger(), 4)
    with serving_at(other) as client:
        status, _, row = client.post({"problem": PROBLEM, "stream": False})
        assert (status, "nothing was released" in row["error"]) == (503, True)
        assert (client.health()[0], client.health()[1]["status"]) == (503, "failed")
        assert client.post({"problem": PROBLEM})[0] == 503
    assert [record["kind"] for record, _ in log.records(path)][-2:] == ["fault", "unanswered"]


def test_signal_answers_what_was_accepted(service, writer, records):
    signals, answers = [], []
    listening = server.listen("127.0.0.1", 0)
    served = app.AnswerApp(service)
    running = server.AnswerServer(served, listening, connections=8, on_signal=signals.append)

    def ask():
        connection = http.client.HTTPConnection(*listening.getsockname(), timeout=60)
        with writer.paused():
            connection.request(
                "POST", "/v1/answers", json.dumps({"problem": PROBLEM}), {"Content-Type": "application/json"}
            )
            assert writer.entered.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
        answers.append(events_in(connection.getresponse().read().decode())[-1])
        connection.close()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    thread.start()
    with running.on_signals():
        running.run()
    thread.join()
    served.close()
    assert (signals, signal.getsignal(signal.SIGTERM)) == ([signal.SIGTERM], before)
    (record,) = records("adaptation")
    assert [(name, row["event"]) for name, row in answers] == [("answer", f"{record['number']}:{record['hash']}")]


def test_signal_before_start_stops_server(service):
    listening = server.listen("127.0.0.1", 0)
    served = app.AnswerApp(service)
    running = server.AnswerServer(served, listening, connections=8)
    with running.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        running.run()
    served.close()
    assert served.queue.state == "stopping"


def test_used_port_is_refused_in_one_line():
    with server.listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=rf"--host=127\.0\.0\.1 --port={port} cannot be bound"):
            server.listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host=no\.such\.invalid is not an address"):
        server.listen("no.such.invalid", 0)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_page_shows_hostile_texts_as_text(serve, writer, tmp_path):
    writer.texts = [HOSTILE] * 6
    with contextlib.closing(Browser(tmp_path / "profile")) as browser, serve() as client:
        browser.open(f"http://127.0.0.1:{client.port}/")
        try:
            hostile = json.loads(browser.evaluate(ASK % json.dumps("<script> 3")))
            writer.texts = None
            plain = json.loads(browser.evaluate(ASK % json.dumps("4 kabo 3")))
        finally:
            writer.texts = None
        refused = json.loads(browser.evaluate(ASK % json.dumps("1 " * 100)))
    gates = ["copy", "duplicates", "length", "parse"]
    assert hostile["head"] == plain["head"] == ["example", *gates, "used"]
    assert hostile["cells"][:: len(gates) + 2] == [HOSTILE.replace("\u202e", "\\u{202e}")] * 6
    assert (hostile["status"], hostile["values"][2].partition(":")[0]) == ("done", "too_few")
    assert (plain["status"], plain["values"][2]) == ("done", "adapted")
    assert plain["cells"].count("yes") >= 2
    assert "does not fit" in refused["status"]
    for shown in (hostile, plain, refused):
        assert (shown["title"], shown["scripts"], shown["images"]) == ("Adapt and answer", 1, 0)


def test_load_test_finds_event_of_every_answer(service, serve, writer):
    questions = [serve_load.Question(f"load{i}", f"{i} kabo {i}") for i in range(9)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with serve(queue=2) as client, writer.paused():
            asking = pool.submit(serve_load.ask_all, client.port, questions, 8)
            client.wait_for(waiting=2)
            time.sleep(0.3)  # until another client is refused
        with serve(port=client.port):  # the clients ask the next server again
            released = asking.result()
    found = serve_load.check(service.log_path, released)
    assert (found["released"], found["released_without_event"], found["verified"]) == (9, 0, True)
    assert {outcome for answer in released for outcome in answer.tries} >= {"429"}
    other = released[0]._replace(answer=released[0].answer | {"text": "another answer"})
    assert serve_load.check(service.log_path, [other, *released[1:]])["released_without_event"] == 1
    missing, hashes = serve_load.lost(service.log_path, [])
    assert missing == 0
    assert serve_load.lost(service.log_path, [*hashes[1:], "0"])[0] == len(hashes)
    speed = serve_load.speed(released, 3.0)
    assert speed["answers_per_second"] == 3.0
    assert 0 < speed["latency_seconds"]["p50"] <= speed["latency_seconds"]["max"]


def test_export_adds_adapter_of_an_event(serve, service, tmp_path):
    with serve() as client:
        answer = client.answer(PROBLEM, "exported")
    assert answer["decision"] == "adapted"
    event, out = answer["event"].partition(":")[2][:8], tmp_path / "out"
    given = ("export", "--model=tiny", f"--log={service.log_path}", f"--event={event}", f"--out={out}")
    done = in_process(*given)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, f"wrote {out}"), done.stderr
    config = LlamaConfig.from_directory(out)
    merged, base = weights.load(out, config), service.setup.model.weights.policy
    changes = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), merged, base)
    (record,) = [r for r, _ in log.records(service.log_path) if r["hash"].startswith(event)]
    assert changes["layers"]["mlp"]["up_proj"]["kernel"] == pytest.approx(record["norms"]["up_proj"], rel=1e-4)
    assert changes["embed_tokens"] == {"embedding": 0.0}
