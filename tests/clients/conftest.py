"""Fixtures: the clients, created as their users create them."""

import openai
import pytest
from huggingface_hub import InferenceClient


@pytest.fixture(scope="session")
def server(pytestconfig):
    return pytestconfig.running_server


@pytest.fixture(scope="session")
def client(server):
    # No retries: a test should see the server's first answer.
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600)


@pytest.fixture(scope="session")
def hub(server):
    return InferenceClient(base_url=server.url, token="none", timeout=600)


@pytest.fixture(scope="session")
def adapter(server):
    return server.adapters[0]
