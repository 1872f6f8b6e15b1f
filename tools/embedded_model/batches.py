"""Batches of conversations of like length, from easy to hard."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.embedded_model.chat import TURN_END, Conversation
from tools.embedded_model.corpus import Corpus
from tools.embedded_model.tokenizer import encode, with_dropout

POOL = 1024
BPE_DROPOUT, DROPPED = 0.1, 0.3
CUT, OPENING = 0.6, 5
"""The share of conversations of which the last answer is cut, and the tokens of it that are kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    `batch` is in tokens, padding included. The first `simple` batches are nearly all single questions without a system
    prompt: from these the model finds out quickly where to look. `rate` is AdamW's, `muon_rate` Muon's.
    """

    steps: int = 3000
    batch: int = 1024
    rate: float = 3e-3
    muon_rate: float = 0.02
    warmup: int = 100
    simple: int = 1500
    decay: float = 0.05
    dropout: float = 0.05
    seed: int = 1


def batches(plan: Plan, tokenizer: Tokenizer, context: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets) [B, T] of conversations of like length; targets that are not learned are -100."""
    corpus, rng = Corpus(plan.seed), random.Random(plan.seed)
    noisy = with_dropout(tokenizer, BPE_DROPOUT)
    stop = tokenizer.token_to_id(TURN_END)
    made = 0
    while True:
        simple = 0.95 if made < plan.simple else 0.0
        pool = []
        for _ in range(POOL):
            splitter = noisy if rng.random() < DROPPED else tokenizer
            conversation = Conversation(None, (corpus.turn(),)) if rng.random() < simple else corpus.conversation()
            ids, learned = encode(tokenizer, splitter, conversation)
            if len(ids) <= context + 1:
                pool.append(_cut(ids, learned, rng))
        pool.sort(key=lambda item: len(item[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = [[]]
        for item in pool:
            if groups[-1] and len(item[0]) * (len(groups[-1]) + 1) > plan.batch:
                groups.append([])
            groups[-1].append(item)
        rng.shuffle(groups)
        made += len(groups)
        for group in groups:
            yield _pad(group, stop)


def _cut(ids: list[int], learned: list[bool], rng: random.Random) -> tuple[list[int], list[bool]]:
    """Mostly, only the first words of the last answer: they decide, and the rest is soon known by heart."""
    start = len(ids) - 1
    while start and not learned[start]:
        start -= 1
    while start and learned[start - 1]:
        start -= 1
    keep = start + OPENING if rng.random() < CUT else len(ids)
    return ids[:keep], learned[:keep]


def _pad(group: list[tuple[list[int], list[bool]]], padding: int) -> tuple[Tensor, Tensor]:
    length = max(len(ids) for ids, _ in group)
    inputs = torch.full((len(group), length - 1), padding)
    targets = torch.full((len(group), length - 1), -100)
    for row, (ids, learned) in enumerate(group):
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        wanted = torch.tensor([token if learn else -100 for token, learn in zip(ids[1:], learned[1:], strict=True)])
        targets[row, : len(ids) - 1] = wanted
    return inputs, targets
