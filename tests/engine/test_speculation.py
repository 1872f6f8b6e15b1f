from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minerva.engine.speculation import NGRAM, PROBE_EVERY, Ngrams, Pace
from minerva.errors import ModelLoadError

EMBEDDED = Path(__file__).parents[2] / "minerva" / "assets" / "minerva-tiny.gguf"


def test_a_text_that_repeats_is_guessed_from_where_it_stood_before():
    tokens = [1, 2, 3, 4, 5, 6, 9, 9, 1, 2, 3]
    assert Ngrams().following(tokens, 3) == [4, 5, 6]


def test_a_text_that_does_not_repeat_is_not_guessed():
    assert Ngrams().following([1, 2, 3, 4, 5], 3) == []


@given(st.lists(st.integers(0, 2), max_size=60))
def test_guesses_are_what_followed_the_last_occurrence_and_grow_with_the_text(tokens):
    ngrams = Ngrams()
    for end in range(len(tokens) + 1):
        text = tokens[:end]
        guess = ngrams.following(text, 4)
        last = tuple(text[-NGRAM:])
        ends = [e for e in range(NGRAM, end) if tuple(text[e - NGRAM : e]) == last]
        assert guess == (text[ends[-1] : ends[-1] + 4] if ends and len(last) == NGRAM else [])


def test_a_sequence_whose_guesses_are_right_makes_longer_ones():
    pace = Pace()
    first = pace.allow(100, 99, worth=0.5)
    pace.observe(first, first)
    assert pace.allow(110, 99, worth=0.5) == 2 * first


def test_a_sequence_whose_guesses_are_wrong_stops_and_tries_again_later():
    pace = Pace()
    at = 100
    while n := pace.allow(at, 99, worth=0.5):
        pace.observe(n, 0)
        at += 1
    assert at < 110
    assert pace.allow(at + PROBE_EVERY - 1, 99, worth=0.5) == 0
    assert pace.allow(at + PROBE_EVERY, 99, worth=0.5) > 0


@pytest.fixture(scope="module")
def llm() -> Any:
    from minerva import LLM

    return LLM


PROMPTS = ["Hello", "What are you?", "the cat sat on the mat. " * 2 + "the cat sat on", "a b a b a b a b"]


def test_greedy_text_is_the_same_with_guesses_and_without(llm: Any):
    texts = []
    for speculate in (True, False):
        with llm(ctx_size=1024, speculate=speculate, check_integrity=True, threads=1) as made:
            texts.append([c.text for c in made.generate(PROMPTS, max_tokens=80, temperature=0, ignore_eos=True)])
            if speculate:
                assert made._local._loaded.engine.counters.accepted_tokens > 0
    assert texts[0] == texts[1]


def test_a_draft_model_that_is_the_model_itself_is_always_right(llm: Any):
    with llm(ctx_size=1024, model_draft=str(EMBEDDED), check_integrity=True, threads=1) as made:
        done = made.generate(PROMPTS, max_tokens=64, temperature=0, ignore_eos=True)
        counters = made._local._loaded.engine.counters
    with llm(ctx_size=1024, speculate=False, threads=1) as plain:
        alone = plain.generate(PROMPTS, max_tokens=64, temperature=0, ignore_eos=True)
    assert [c.text for c in done] == [c.text for c in alone]
    assert counters.accepted_tokens > 0.9 * counters.drafted_tokens


def test_a_draft_model_with_another_vocabulary_is_refused(llm: Any, model_file: Any):
    with pytest.raises(ModelLoadError, match="vocabulary"):
        llm(ctx_size=512, model_draft=str(model_file()), threads=1)
