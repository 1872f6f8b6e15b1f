"""The work of `harness/bench.c` through `minerva._core`: what the binding costs over the C API.

    python -m bench.step_loop MODEL --threads 2 --clients 16 --requests 48 --prompt-tokens 111 -n 64 --seed 1

Prints one JSON object with the harness's keys. A process of its own, since it loads llama.cpp.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time

from minerva._core import Batch, Context, Model, Sampler
from minerva.engine.params import SamplingParams

N_BATCH = 2048
GREEDY = SamplingParams(temperature=0, ignore_eos=True)


class Slot:
    def __init__(self, model: Model, prompt: list[int]) -> None:
        self.tokens = prompt
        self.computed = 0
        self.stop = 0
        self.left = 0
        self.sampler = Sampler(model.vocab, GREEDY)


class Loop:
    def __init__(self, model: Model, context: Context, n_predict: int, rng: random.Random) -> None:
        self.model = model
        self.context = context
        self.n_predict = n_predict
        self.rng = rng
        self.batch = Batch(N_BATCH)
        self.slots: dict[int, Slot] = {}
        self.output_tokens = 0

    def serve(self, requests: int, prompt_tokens: int) -> None:
        started = 0
        while self.slots or started < requests:
            for index in range(self.context.n_slots):
                if index not in self.slots and started < requests:
                    words = range(len(self.model.vocab) // 2)
                    self.slots[index] = Slot(self.model, self.rng.choices(words, k=prompt_tokens))
                    self.slots[index].left = self.n_predict
                    started += 1
            self.step()

    def step(self) -> None:
        self.batch.clear()
        yielding: list[tuple[int, Slot]] = []
        for index, slot in self.slots.items():
            stop = min(len(slot.tokens), slot.computed + N_BATCH - len(self.batch))
            if stop > slot.computed:
                whole = stop == len(slot.tokens)
                self.batch.add(index, slot.tokens, slot.computed, stop, slot.sampler if whole else None)
                slot.computed = stop
                if whole:
                    yielding.append((index, slot))
        outputs = self.context.step(self.batch)
        for (index, slot), (tokens, _, _) in zip(yielding, outputs, strict=True):
            slot.tokens += tokens
            slot.left -= len(tokens)
            self.output_tokens += len(tokens)
            if slot.left <= 0:
                self.context.remove(index)
                del self.slots[index]


def main() -> None:
    parser = argparse.ArgumentParser(description="The C harness's work through minerva._core.")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=6)
    parser.add_argument("--prompt-tokens", type=int, default=111)
    parser.add_argument("-n", "--n-predict", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kv-unified", action="store_true")
    args = parser.parse_args()
    model = Model(args.model)
    cells = -(-(args.prompt_tokens + args.n_predict) // 256) * 256 * args.clients
    context = Context(
        model,
        n_ctx=cells,
        n_slots=args.clients,
        n_batch=N_BATCH,
        threads=args.threads,
        threads_batch=args.threads,
        kv_unified=args.kv_unified,
    )
    rng = random.Random(args.seed)
    Loop(model, context, 2, rng).serve(1, 8)  # touches the weights before the clock starts
    loop = Loop(model, context, args.n_predict, rng)
    start = time.perf_counter()
    loop.serve(args.requests, args.prompt_tokens)
    wall = time.perf_counter() - start
    figures = {
        "output_tok_s": loop.output_tokens / wall,
        "total_tok_s": (loop.output_tokens + args.requests * args.prompt_tokens) / wall,
        "wall_s": wall,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
