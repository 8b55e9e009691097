"""Starts, watches and stops the server."""

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

START_LIMIT = 180  # seconds; a slow disk and an unoptimised build need long


class Server:
    """The server on a free port of the loopback interface, as a context manager."""

    def __init__(self, server, model=None, adapters=None, flags=(), environment=None):
        self.paths = server, model, adapters
        models = [*(["--base", model] if model else []), *(["--adapters", adapters] if adapters else [])]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [server, "serve", *models, "--port", str(port), *flags],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def __enter__(self):
        try:
            self._wait()
            models = self.get("/v1/models")["data"]
            self.base = next(model["id"] for model in models if model["parent"] is None)
            self.adapters = [model["id"] for model in models if model["parent"] is not None]
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        self._stop()

    def _wait(self):
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with status {self.process.returncode}:\n{self._last_words()}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                with urllib.request.urlopen(self.url + "/health", timeout=5):
                    return
            time.sleep(0.1)
        raise SystemExit(f"the server did not answer in {START_LIMIT} seconds:\n{self._last_words()}")

    def _last_words(self):
        self.log.seek(0)
        return "".join(self.log.readlines()[-30:])

    def _stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def another(self, *flags, environment=None):
        """A server of the same program and models, with other flags."""
        return Server(*self.paths, flags, environment)

    def alone(self, *flags, environment=None):
        """A server of the same program, with only these flags."""
        return Server(self.paths[0], flags=flags, environment=environment)

    def wait_until_closed(self):
        """Returns once the server accepts no more connections."""
        deadline = time.monotonic() + 60
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            while time.monotonic() < deadline:
                self.get("/health")
                time.sleep(0.02)
            raise AssertionError("the server still takes connections")

    @property
    def models(self):
        """The names of the base and of all adapters."""
        return [self.base, *self.adapters]

    def get(self, path):
        """The JSON that the server answers at a path."""
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.loads(response.read() or "null")

    def remove(self, adapter):
        """Removes an adapter."""
        path = urllib.parse.quote(f"/v1/adapters/{adapter}")
        urllib.request.urlopen(urllib.request.Request(self.url + path, method="DELETE"), timeout=60).close()

    def wait_until(self, condition):
        """Waits until the server's statistics meet the condition, and returns them."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            stats = self.get("/stats")
            if condition(stats):
                return stats
            time.sleep(0.02)
        raise AssertionError(f"the server never came there; its figures are {stats}")
