"""`schemathesis`: sends requests that the OpenAPI document allows, and others, to every route."""

import json
import pathlib
import subprocess
import tempfile
import urllib.request

import pytest

# There is no undocumented 5xx, answers match the document, and requests that the document does not
# allow are refused. Whether all allowed requests are accepted is not checked, because the document
# cannot say which models are served.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
]


def test_the_server_is_as_its_document_says(pytestconfig, server):
    if not pytestconfig.schemathesis:
        pytest.skip("without --schemathesis there is no program to try it")
    with tempfile.TemporaryDirectory() as data:
        # Keeps contexts and answers short, for requests that give no number of tokens, or as many
        # as fit.
        flags = ["--context", "256", "--default-max-tokens", "4", "--data", data]
        with server.another(*flags) as other:
            program = pathlib.Path(pytestconfig.schemathesis)
            with urllib.request.urlopen(f"{other.url}/openapi.json", timeout=60) as answer:
                document = json.load(answer)
            # A random timeout mostly ends before the answer is ready, which is a correct 504.
            for operation in (operation for path in document["paths"].values() for operation in path.values()):
                parameters = operation.get("parameters", [])
                parameters[:] = [one for one in parameters if one["name"] != "x-request-timeout"]
            tried = pathlib.Path(data, "openapi.json")
            tried.write_text(json.dumps(document), encoding="utf-8")
            run = [program, "run", tried, "--url", other.url, "--checks", ",".join(CHECKS)]
            run += ["--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-shrink"]
            run += ["--continue-on-failure", "--warnings", "off", "--request-timeout", "120"]
            done = subprocess.run(run, cwd=data, capture_output=True, text=True, timeout=1800, check=False)
            assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
            figures = other.wait_until(lambda stats: stats["running"] == 0 and stats["waiting"] == 0)
            assert figures["kv_blocks_used"] == 0
