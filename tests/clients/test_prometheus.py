"""A real Prometheus scrapes the server.

The files for Prometheus and Grafana in deploy/ use only metrics that exist.
"""

import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from prometheus_client.openmetrics import parser

DEPLOY = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy"
DASHBOARD = DEPLOY / "grafana" / "multigraft.json"
PROGRAMS = "prometheus", "promtool"
START_LIMIT = 60  # seconds
SCRAPE_LIMIT = 30  # seconds; there is one scrape per second

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)),
    reason="there is no `prometheus` with its `promtool`; on Debian, `apt-get install prometheus` installs both",
)


class Prometheus:
    """Prometheus on a free port of the loopback interface, as a context manager."""

    def __init__(self, config, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}"
        self.log_path = folder / "prometheus.log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self):
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self):
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                with urllib.request.urlopen(self.url + "/-/ready", timeout=5):
                    return
            time.sleep(0.1)
        raise AssertionError(f"prometheus is not ready:\n{self.log_path.read_text()}")

    def api(self, path, **parameters):
        """The answer of Prometheus' HTTP API."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression):
        """The current labels and values of an expression."""
        result = self.api("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def wait_until(self, expression, condition):
        """Waits until an expression meets the condition; returns its labels and values."""
        deadline = time.monotonic() + SCRAPE_LIMIT
        while time.monotonic() < deadline:
            result = self.query(expression)
            if condition(result):
                return result
            time.sleep(0.2)
        targets = self.api("targets")["activeTargets"]
        raise AssertionError(f"{expression} never came there, it is {result}; {targets}")


@pytest.fixture(scope="module")
def prometheus(server, client, tmp_path_factory):
    for name in server.models:
        client.completions.create(model=name, prompt="Once upon", max_tokens=2, extra_body={"ignore_eos": True})
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    for ours, here in [("127.0.0.1:8080", server.url.removeprefix("http://")), ("scrape_interval: 15s", "scrape_interval: 1s")]:
        assert ours in text
        text = text.replace(ours, here)
    config = folder / "prometheus.yml"
    config.write_text(text)
    with Prometheus(config, folder) as running:
        running.wait_until("up", lambda result: [value for _, value in result] == [1])
        yield running


def families(server):
    """The metrics of /metrics, parsed by Prometheus' own client."""
    asked = urllib.request.Request(server.url + "/metrics", headers={"accept": "application/openmetrics-text"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        return list(parser.text_string_to_metric_families(response.read().decode()))


def promtool(*arguments, text=None):
    """The output of `promtool`; fails if `promtool` finds a fault."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=text, text=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def dashboard():
    """The dashboard's expressions, for all servers and adapters."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    values = {"$__rate_interval": "1m", "$instance": ".*", "$adapter": ".*"}
    return [re.sub(r"\$\w+", lambda name: values[name[0]], expression) for expression in expressions]


def test_prometheus_has_series_of_every_adapter(server, prometheus):
    for series in ["multigraft_requests_total", "multigraft_generated_tokens_total", "multigraft_request_duration_seconds_count"]:
        values = {labels["adapter"]: value for labels, value in prometheus.query(f"sum by (adapter) ({series})")}
        assert set(server.models) <= set(values), series
        assert all(values[name] > 0 for name in server.models), series


def test_prometheus_counts_what_is_asked_between_two_scrapes(server, client, prometheus):
    adapter = server.adapters[0]
    series = f'multigraft_requests_total{{adapter="{adapter}", outcome="finished"}}'
    [(_, before)] = prometheus.query(series)
    for _ in range(3):
        client.completions.create(model=adapter, prompt="Once upon", max_tokens=1)
    prometheus.wait_until(series, lambda result: [value for _, value in result] == [before + 3])


def test_promtool_finds_nothing_to_say_about_our_metrics(server):
    # promtool reads only the older text format. It would reject the colon in vLLM's names, which
    # we cannot change.
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.removeprefix("# TYPE ").removeprefix("# HELP ").startswith("vllm:"))
    assert "multigraft_requests_total" in text
    assert promtool("check", "metrics", text=text) == ""


def test_promtool_accepts_the_example_and_its_alerts():
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert "8 rules found" in promtool("check", "rules", DEPLOY / "prometheus" / "alerts.yml")


def test_alerts_name_a_server_that_is_not_well_and_leave_others_alone():
    promtool("test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")


def test_metrics_and_labels_of_alerts_and_dashboard_exist(server, prometheus):
    there = {"up": {"job", "instance"}}
    for sample in (sample for family in families(server) for sample in family.samples):
        there.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    [group] = prometheus.api("rules")["groups"]
    variables = [variable["query"] for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]]
    for expression in [*dashboard(), *variables, *(rule["query"] for rule in group["rules"])]:
        for name, matchers in re.findall(r"\b(up|multigraft_\w+|vllm:\w+)\b(?:\{([^}]*)\})?", expression):
            assert name in there, expression
            assert set(re.findall(r"(\w+)\s*(?:=|!)", matchers)) <= there[name], expression


def test_prometheus_computes_every_panel_of_the_dashboard(prometheus):
    # A rate needs two scrapes.
    prometheus.wait_until("sum(rate(multigraft_steps_total[1m]))", bool)
    empty = [expression for expression in dashboard() if not prometheus.query(expression)]
    # Events that never happened on this server have no series.
    assert [expression for expression in empty if 'outcome!="finished"' not in expression] == []
