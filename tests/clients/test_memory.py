"""One memory budget for adapters and the KV cache."""

from concurrent.futures import ThreadPoolExecutor

import openai

MIB = 1 << 20


def tokens(seed, count):
    return [(seed * 104729 + position * 37 + 11) % 40000 for position in range(count)]


def complete(server, model, prompt, max_tokens, **extra):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    return client.completions.create(
        model=model, prompt=prompt, max_tokens=max_tokens, temperature=0, extra_body=extra
    )


def answers(server, names):
    """The text that each of these models generates."""
    return {name: complete(server, name, "The weather today is", 12).choices[0].text for name in names}


def flood(server, names):
    """Many long requests at once, whose KV cache does not fit into memory."""

    def ask(seed):
        answer = complete(server, names[seed % len(names)], tokens(seed, 150), 80, ignore_eos=True)
        return answer.usage.completion_tokens

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, range(16)))


def test_keys_and_values_and_adapters_make_room_for_each_other(server):
    expected = answers(server, [server.base, *server.adapters])
    # The KV cache has at least one context of 256 tokens, 5.6 MiB. All adapters take 9 MiB.
    with server.another("--context", "256", "--memory", "20MiB") as own:

        def budget():
            memory = own.get("/v1/adapters")["memory"]["budget"]
            assert memory["limit"] == 20 * MIB
            assert memory["keys_and_values"] + memory["adapters"] <= memory["limit"]
            return memory

        def resident():
            listed = own.get("/v1/adapters")["data"]
            return [adapter["name"] for adapter in listed if adapter["state"] == "resident"]

        before = budget()
        assert len(resident()) == len(own.adapters)
        # Idle adapters make room for sequences of the base, which all finish as expected.
        assert flood(own, [own.base]) == [80] * 16
        after = budget()
        assert after["keys_and_values"] > before["keys_and_values"]
        assert after["adapters"] < before["adapters"], "no adapter made room"
        assert len(resident()) < len(own.adapters)
        # The prefix cache makes room for adapters, and every answer stays the same.
        assert answers(own, [own.base, *own.adapters]) == expected
        assert len(resident()) == len(own.adapters)
        assert budget()["keys_and_values"] < after["keys_and_values"]
        # Requests for all adapters at once: those that run hold their memory, the others wait.
        assert flood(own, own.adapters) == [80] * 16
        budget()
        assert answers(own, [own.base, *own.adapters]) == expected


def test_a_budget_that_cannot_hold_one_context_is_refused(server):
    try:
        server.another("--context", "2048", "--memory", "10MiB").__enter__()
    except SystemExit as refused:
        assert "memory is 10.0 MiB" in str(refused) and "--context" in str(refused)
    else:
        raise AssertionError("it was served")
