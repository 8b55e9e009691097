"""Many clients and adapters in one batch do not affect each other."""

from concurrent.futures import ThreadPoolExecutor

SUBJECTS = ["the sea", "a small town", "winter", "old radios", "the number seven", "bread", "maps", "an honest clock"]


def test_32_requests_over_all_models_at_once_answer_as_they_do_alone(client, server):
    models = server.models
    requests = [
        dict(
            model=models[number % len(models)],
            messages=[{"role": "user", "content": f"Write about {SUBJECTS[number % 8]}, number {number}."}],
            max_tokens=6 + number % 9,
            temperature=0,
            logprobs=True,
        )
        for number in range(32)
    ]

    def ask(request):
        answer = client.chat.completions.create(**request)
        choice = answer.choices[0]
        scores = [token.logprob for token in choice.logprobs.content]
        return answer.model, answer.system_fingerprint, choice.message.content, choice.finish_reason, scores

    alone = [ask(request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(ask, requests))
    # Every log-probability is equal to the bit, not only the text.
    assert together == alone
    assert len({fingerprint for _, fingerprint, *_ in together}) == len(models)


def test_streams_and_whole_answers_of_both_apis_mix(client, hub, server):
    prompt = "The battery died after two days."

    def openai_stream(name):
        chunks = client.completions.create(model=name, prompt=prompt, max_tokens=10, temperature=0, stream=True)
        return "".join(chunk.choices[0].text for chunk in chunks)

    def hub_whole(name):
        adapter = None if name == server.base else name
        return hub.text_generation(prompt, adapter_id=adapter, max_new_tokens=10)

    with ThreadPoolExecutor(2 * len(server.models)) as pool:
        streamed = pool.map(openai_stream, server.models)
        whole = pool.map(hub_whole, server.models)
        assert list(streamed) == list(whole)
