"""The page in headless Chromium, with a hostile question and hostile examples."""

import contextlib
import json
import os
import shutil
import subprocess
import time

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>\u202eabc"
ASK = """(async () => {
  document.getElementById('problem').value = %s;
  document.getElementById('ask').requestSubmit();
  const status = document.getElementById('status');
  while (!(status.textContent === 'done' || status.className === 'bad')) await new Promise((resolve) => setTimeout(resolve, 20));
  const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
  return JSON.stringify({title: document.title, status: texts('#status')[0], values: texts('dd'), head: texts('th'),
    cells: texts('td'), scripts: document.scripts.length, images: document.images.length});
})()"""


class Browser:
    """Headless Chromium, driven over a pair of pipes by the DevTools protocol."""

    def __init__(self, profile):
        self._to, self._from, self._rest, self._id, self._session = *self._start(profile), b"", 0, None

    def _start(self, profile):
        """Starts the process, which reads commands from descriptor 3 and writes to 4."""
        read_commands, write_commands = os.pipe()
        read_results, write_results = os.pipe()
        script = f'exec 3<&{read_commands} 4>&{write_results}; exec "$@"'
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", CHROMIUM, *flags, "about:blank"],
            pass_fds=(read_commands, write_results),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_results)
        return write_commands, read_results

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method, **params):
        """Calls a method of the protocol and returns its result."""
        self._id += 1
        row = {"id": self._id, "method": method, "params": params}
        os.write(self._to, json.dumps(row | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._from, 65536)
                assert read, "Chromium ended"
                self._rest += read
            message, self._rest = self._rest.split(b"\0", 1)
            found = json.loads(message)
            if found.get("id") == self._id:
                assert "error" not in found, found
                return found["result"]

    def open(self, url):
        """Opens a page in a new tab and waits until it is loaded."""
        target = self.call("Target.createTarget", url=url)["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        while self.evaluate("document.readyState + location.protocol") != "completehttp:":
            time.sleep(0.02)

    def evaluate(self, expression):
        """Returns the value of an expression or of its promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]


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
