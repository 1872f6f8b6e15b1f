"""The vocabulary: byte-level BPE with GPT-2's pre-tokenizer, which llama.cpp knows as `gpt-2`."""

import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.embedded_model.chat import CONTROL_TOKENS, TEMPLATE, TOOL_TOKENS, Conversation, segments
from tools.embedded_model.corpus import Corpus
from tools.embedded_model.functions import call, tool

VOCAB_SIZE = 1536
SAMPLE = 20_000
TOOL_SAMPLE = 1_000


def train_tokenizer(seed: int) -> Tokenizer:
    """Learn the merges from the corpus and from some JSON, which tool calls will need."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(TOOL_TOKENS),
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed), trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TOOL_TOKENS])
    return tokenizer


def with_dropout(tokenizer: Tokenizer, dropout: float) -> Tokenizer:
    """A copy that skips merges at random, so that one word is seen in several splits."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.model.dropout = dropout
    return copy


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer saved at `path`."""
    return Tokenizer.from_file(str(path))


def encode(tokenizer: Tokenizer, noisy: Tokenizer, conversation: Conversation) -> tuple[list[int], list[bool]]:
    """Token ids and, for each, whether it is to be learned; what is not learned is split by `noisy`."""
    ids: list[int] = []
    learned: list[bool] = []
    for text, learn in segments(conversation):
        piece = (tokenizer if learn else noisy).encode(text).ids
        ids += piece
        learned += [learn] * len(piece)
    return ids, learned


def _texts(seed: int) -> Iterator[str]:
    corpus = Corpus(seed)
    rng = random.Random(seed)
    for _ in range(SAMPLE):
        conversation = corpus.conversation()
        for turn in conversation.turns:
            yield turn.user
            yield turn.assistant
    for _ in range(TOOL_SAMPLE):
        yield tool(rng)
        yield call(rng)
    yield TEMPLATE
