"""A `pensieve serve` of the shipped model for one test module, on a free port."""

import json
import os
import re
import subprocess
import threading
import unittest
import urllib.error
import urllib.request

KEY = "sk-clients"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
DESCRIPTION = "Get the current weather for a city."
RESULT = '{"temperature": 12, "condition": "rainy"}'


class Server:
    """A running server; `url` is where."""

    def __init__(self, *arguments):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSIEVE_")}
        self.process = subprocess.Popen(
            [os.environ["PENSIEVE_BINARY"], "serve", "--port", "0", "--api-key", KEY, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if found := re.match(r"serving .* on (http://\S+)/v1", line):
                self.url = found[1]
                break
        else:
            raise RuntimeError("the server ended before it served")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, path, body=None):
        """The JSON that a bare request gets, or the text if it is none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"x-api-key": KEY})
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def gauge(self, name):
        """A value out of /metrics."""
        for line in self.ask("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise KeyError(name)

    def stop(self):
        """Ends the server in order; fails if it ended badly."""
        self.process.terminate()
        code = self.process.wait(60)
        if code != 0:
            raise RuntimeError(f"the server ended with code {code}")


def with_anthropic():
    """A server and Anthropic's client of it; both end with the test module that calls this in its setUpModule."""
    import anthropic

    server = Server()
    unittest.addModuleCleanup(server.stop)
    client = anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0)
    unittest.addModuleCleanup(client.close)
    return server, client
