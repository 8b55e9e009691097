"""Embeddings of the real model, with the official clients."""

import math

import openai
import pytest

TEXTS = [
    "The battery died after two days.",
    "The accumulator stopped working within 48 hours.",
    "Add flour and butter, then bake the cake.",
]


def embed(client, model, texts, **options):
    # By default the client requests base64 and decodes it.
    answer = client.embeddings.create(model=model, input=texts, **options)
    assert [entry.index for entry in answer.data] == list(range(len(texts)))
    return [entry.embedding for entry in answer.data]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_texts_that_mean_the_same_are_nearest(client, server, adapter):
    for model in (server.base, adapter):
        vectors = embed(client, model, TEXTS)
        for vector in vectors:
            assert math.isclose(cosine(vector, vector), 1, rel_tol=1e-5)
        same, other = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
        assert same > other + 0.05, (model, same, other)


def test_every_adapter_embeds_its_own_way_together_as_alone(client, server):
    together = {name: embed(client, name, TEXTS) for name in server.models}
    for name in server.models:
        alone = [embed(client, name, [text])[0] for text in TEXTS]
        assert alone == together[name]
        if name != server.base:
            assert cosine(together[name][0], together[server.base][0]) < 0.9999


def test_floats_and_base64_are_the_same_numbers(client, server):
    plain = embed(client, server.base, TEXTS[:1], encoding_format="float")
    # The decimals in JSON stand for the same 32-bit floats.
    assert plain[0] == pytest.approx(embed(client, server.base, TEXTS[:1])[0], rel=1e-6)


def test_what_cannot_be_embedded_is_an_error_with_a_reason(client, server):
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model=server.base, input="x", dimensions=64)
    with pytest.raises(openai.BadRequestError, match="embed it in parts"):
        client.embeddings.create(model=server.base, input="word " * 20000)
    with pytest.raises(openai.NotFoundError, match="no-such"):
        client.embeddings.create(model="no-such", input="x")
