"""Headless Chromium for tests, without a driver or a client for web sockets."""

import json
import os
import shutil
import subprocess

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Browser:
    """Headless Chromium, driven over a pair of pipes by the DevTools protocol."""

    def __init__(self, profile):
        self._to, self._from = self._start(profile)
        self._rest, self._id, self._session, self._seen = b"", 0, None, set()

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
        while (found := self._receive()).get("id") != self._id:
            pass
        assert "error" not in found, found
        return found["result"]

    def _receive(self):
        """Returns the next message and notes the names of events."""
        while b"\0" not in self._rest:
            read = os.read(self._from, 65536)
            assert read, "Chromium ended"
            self._rest += read
        message, self._rest = self._rest.split(b"\0", 1)
        found = json.loads(message)
        self._seen.add(found.get("method"))
        return found

    def open(self, url):
        """Opens a page in a new tab and waits until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._seen:
            self._receive()

    def evaluate(self, expression):
        """Returns the value of an expression or of its promise."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]
