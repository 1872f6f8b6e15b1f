"""Prompts nobody has seen: common English words, about one token each, in a random order."""

import random
from pathlib import Path

from bench.workloads import Workload

WORDS = (Path(__file__).parent / "words.txt").read_text().split()

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "kind": {"enum": ["alpha", "beta", "gamma"]},
        # Long enough that no request completes its document before its token limit.
        "notes": {"type": "array", "items": {"type": "string", "minLength": 8}, "minItems": 64},
    },
    "required": ["id", "kind", "notes"],
    "additionalProperties": False,
}


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def conversations(workload: Workload, rng: random.Random) -> list[list[dict[str, str]]]:
    """The messages of every request; a shared system prompt is the same for all of them."""
    system = words(rng, workload.system_words)
    first = [{"role": "system", "content": system}] if system else []
    return [[*first, {"role": "user", "content": words(rng, workload.words)}] for _ in range(workload.requests)]
