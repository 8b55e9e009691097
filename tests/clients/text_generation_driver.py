"""TGI's own client, in the environment of LoRAX's client.

Reads calls from stdin, as JSON, one per line, and prints the result of each call.
"""

import json
import sys

from text_generation import Client
from text_generation.errors import GenerationError, NotFoundError, UnknownError, ValidationError
from text_generation.types import Grammar, Message


def call(client, method, options):
    if "grammar" in options:
        options["grammar"] = Grammar(**options["grammar"])
    if method == "chat":
        options["messages"] = [Message(**message) for message in options["messages"]]
        choice = client.chat(**options).choices[0]
        return {"text": choice.message.content, "reason": choice.finish_reason}
    if method == "generate_stream":
        events = list(client.generate_stream(**options))
        text = "".join(event.token.text for event in events if not event.token.special)
        return {"text": events[-1].generated_text, "pieces": text, "tokens": len(events)}
    answer = client.generate(**options)
    details = answer.details
    return {
        "text": answer.generated_text,
        "tokens": details.generated_tokens,
        "prefill": [token.text for token in details.prefill],
        "reason": details.finish_reason.value,
    }


def main():
    client = Client(sys.argv[1], timeout=600)
    for line in sys.stdin:
        options = json.loads(line)
        try:
            said = call(client, options.pop("call"), options)
        except (GenerationError, NotFoundError, UnknownError, ValidationError) as error:
            said = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
