"""`/metrics`, read by Prometheus' own parser."""

import urllib.request

import openai
from prometheus_client.openmetrics import parser


def scrape(server):
    asked = urllib.request.Request(server.url + "/metrics", headers={"accept": "application/openmetrics-text"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        families = list(parser.text_string_to_metric_families(response.read().decode()))
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_an_adapters_requests_tokens_and_times_are_its_own(server):
    adapter = server.adapters[0]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    before = scrape(server)
    for _ in range(2):
        client.completions.create(model=adapter, prompt="Once upon", max_tokens=5, extra_body={"ignore_eos": True})
    after = scrape(server)

    def grown(name, **labels):
        key = name, tuple(sorted({"adapter": adapter, **labels}.items()))
        return after[key] - before.get(key, 0)

    assert grown("multigraft_requests_total", outcome="finished") == 2
    assert grown("multigraft_generated_tokens_total") == 10
    assert grown("multigraft_time_to_first_token_seconds_count") == 2
    assert grown("multigraft_inter_token_latency_seconds_count") == 8
    assert 0 < grown("multigraft_request_duration_seconds_sum") < 120
    states = {dict(labels)["kind"]: value for (name, labels), value in after.items() if name == "multigraft_adapters"}
    assert states["resident"] >= len(server.adapters)
    [lora] = [dict(labels) for (name, labels) in after if name == "vllm:lora_requests_info"]
    assert adapter in lora["running_lora_adapters"].split(",")
    assert any(name == "multigraft_adapter_load_seconds_count" and value >= 5 for (name, _), value in after.items())
