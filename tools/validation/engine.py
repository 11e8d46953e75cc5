"""SGLang's engine on the chip in a process of its own, as a user's script makes it: its state is global.

Reads {"engine": {…}, "prompts": [[token, …], …], "tokens": n, "concurrency": [n, …]} from standard input
and writes [{"tokens": [[…], …], "seconds": s}, …] to the file of its argument, an entry a concurrency:
never more than so many requests are in the engine, and as one is done the next one enters.
"""

import asyncio
import json
import sys
import time
from pathlib import Path


def main() -> None:
    import sglang

    request = json.load(sys.stdin)
    engine = sglang.Engine(**request["engine"])
    try:
        run = asyncio.get_event_loop().run_until_complete
        answers = [run(_serve(engine, request, limit)) for limit in request["concurrency"]]
    finally:
        engine.shutdown()
    Path(sys.argv[1]).write_text(json.dumps(answers))


async def _serve(engine, request: dict, limit: int) -> dict:
    parameters = {"temperature": 0, "max_new_tokens": request["tokens"]}
    places = asyncio.Semaphore(limit)

    async def one(prompt: list[int]) -> list[int]:
        async with places:
            answer = await engine.async_generate(input_ids=prompt, sampling_params=parameters)
        return answer["output_ids"]

    start = time.perf_counter()
    tokens = await asyncio.gather(*map(one, request["prompts"]))
    return {"tokens": tokens, "seconds": time.perf_counter() - start}


if __name__ == "__main__":
    main()
