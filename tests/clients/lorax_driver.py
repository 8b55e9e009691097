"""LoRAX's client, in an environment of its own.

Reads calls from stdin, as JSON, one per line, and prints the result of each call.
"""

import json
import sys

from lorax import Client
from lorax.errors import GenerationError, NotFoundError, UnknownError, ValidationError
from lorax.types import MergedAdapters


def call(client, options):
    stream = options.pop("stream", False)
    if "embed" in options:
        return {"embeddings": client.embed(options["embed"]).embeddings}
    if "merged_adapters" in options:
        options["merged_adapters"] = MergedAdapters(**options["merged_adapters"])
    if stream:
        tokens = list(client.generate_stream(**options))
        return {"text": tokens[-1].generated_text, "tokens": len(tokens)}
    answer = client.generate(**options)
    details = answer.details
    alternatives = [[one.text for one in token.alternative_tokens or []] for token in details.tokens]
    others = [other.generated_text for other in details.best_of_sequences or []]
    return {
        "text": answer.generated_text,
        "tokens": details.generated_tokens,
        "prompt": details.prompt_tokens,
        "alternatives": alternatives,
        "others": others,
    }


def main():
    client = Client(sys.argv[1], timeout=600, max_session_retries=0)
    for line in sys.stdin:
        try:
            said = call(client, json.loads(line))
        except (GenerationError, NotFoundError, UnknownError, ValidationError) as error:
            said = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
