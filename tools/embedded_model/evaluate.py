"""How often the model answers held-out wordings rightly, in the checkpoint or behind any OpenAI-compatible server."""

import json
import random
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.embedded_model.chat import TURN_END, prompt
from tools.embedded_model.corpus import Corpus
from tools.embedded_model.intents import Intent, load_intents
from tools.embedded_model.judge import Reply, judge
from tools.embedded_model.noise import misspell

Split = Literal["dev", "test"]
Model = Callable[[str | None, Sequence[tuple[str, str]], str], Reply]
LIMIT = 96
CONDITIONS = ("as written", "lower case, bare", "misspelt", "system prompt", "third turn")


@dataclass(frozen=True, slots=True)
class Case:
    """One question under one condition."""

    condition: str
    intent: Intent
    system: str | None
    history: tuple[tuple[str, str], ...]
    question: str


def cases(split: Split, seed: int = 2024) -> Iterator[Case]:
    """Every held-out wording of `split` under every condition; the same ones for the same seed."""
    rng, corpus = random.Random(seed), Corpus(seed)
    for intent in load_intents().values():
        for wording in getattr(intent, split):
            bare = wording.lower().rstrip("?!.")
            earlier = tuple((turn.user, turn.assistant) for turn in (corpus.turn(), corpus.turn()))
            yield Case(CONDITIONS[0], intent, None, (), wording)
            yield Case(CONDITIONS[1], intent, None, (), bare)
            yield Case(CONDITIONS[2], intent, None, (), misspell(wording, rng))
            yield Case(CONDITIONS[3], intent, corpus.system(0, always=True), (), wording)
            yield Case(CONDITIONS[4], intent, None, earlier, wording)


def evaluate(model: Model, split: Split, show_failures: bool) -> float:
    """Print the share of right answers by condition and the weakest intents; return the overall share."""
    right, asked, missed = Counter[str](), Counter[str](), Counter[str]()
    for case in cases(split):
        reply = model(case.system, case.history, case.question)
        good = judge(case.intent, reply)
        right[case.condition] += good
        asked[case.condition] += 1
        missed[case.intent.name] += not good
        if show_failures and not good:
            ending = "" if reply.ended else " (not ended)"
            print(f"  [{case.condition}] {case.intent.name}: {case.question!r} -> {reply.text!r}{ending}")
    for condition in CONDITIONS:
        print(f"{condition:18} {right[condition]:5} / {asked[condition]:5} = {right[condition] / asked[condition]:.1%}")
    overall = right.total() / asked.total()
    print(f"{'overall':18} {right.total():5} / {asked.total():5} = {overall:.1%}")
    print("most missed:", ", ".join(f"{name} {count}" for name, count in missed.most_common(8) if count))
    return overall


def checkpoint(folder: Path) -> Model:
    """The PyTorch model in `folder`, decoded greedily."""
    from tools.embedded_model.train import load

    network, tokenizer = load(folder)
    stop = tokenizer.token_to_id(TURN_END)

    def answer(system: str | None, history: Sequence[tuple[str, str]], question: str) -> Reply:
        ids, ended = network.greedy(tokenizer.encode(prompt(system, history, question)).ids, stop, LIMIT)
        return Reply(tokenizer.decode(ids), ended)

    return answer


def server(url: str, name: str, timeout: float = 120.0) -> Model:
    """The model `name` behind `url`/v1/chat/completions, at temperature 0."""

    def answer(system: str | None, history: Sequence[tuple[str, str]], question: str) -> Reply:
        messages = [{"role": "system", "content": system}] if system is not None else []
        for user, assistant in history:
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        messages.append({"role": "user", "content": question})
        body = json.dumps({"model": name, "messages": messages, "temperature": 0, "max_tokens": LIMIT}).encode()
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            choice = json.load(response)["choices"][0]
        return Reply(choice["message"]["content"] or "", choice["finish_reason"] == "stop")

    return answer
