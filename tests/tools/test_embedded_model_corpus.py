"""The embedded model's corpus keeps the measured wordings out, and its judge tells the answers apart."""

import itertools
import random

import pytest

pytest.importorskip("tomllib")

from tools.embedded_model.chat import TURN_END, TURN_START, Conversation, Turn, prompt, segments
from tools.embedded_model.corpus import Corpus
from tools.embedded_model.evaluate import cases
from tools.embedded_model.grammar import Grammar, Macro, parse
from tools.embedded_model.intents import Intent, held_out, load_grammar, load_intents, normalise
from tools.embedded_model.judge import Reply, judge
from tools.embedded_model.reach import reachable

INTENTS = load_intents()
ANSWERS = [(intent, answer) for intent in INTENTS.values() for answer in intent.answers]


def test_no_held_out_wording_is_trained_on() -> None:
    conversations = itertools.islice(Corpus(1), 5000)
    trained = {normalise(turn.user) for conversation in conversations for turn in conversation.turns}
    assert trained.isdisjoint(held_out())


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_no_pattern_can_produce_a_measured_wording(intent: Intent) -> None:
    assert [wording for wording in intent.test if reachable(intent, wording)] == []


def test_what_is_trained_on_is_within_reach() -> None:
    grammar, rng = load_grammar(), random.Random(5)
    for intent in INTENTS.values():
        ask = next(ask for ask in intent.asks if Macro("word") not in ask)
        assert reachable(intent, f"Hey, {grammar.sample(ask, rng)}?"), intent.name


def test_every_intent_has_held_out_wordings_that_differ() -> None:
    for intent in INTENTS.values():
        assert len(intent.dev) >= 4, intent.name
        assert len(intent.test) >= 5, intent.name
    wordings = [normalise(text) for intent in INTENTS.values() for text in (*intent.dev, *intent.test)]
    assert len(wordings) == len(set(wordings))


def test_the_same_seed_gives_the_same_corpus() -> None:
    first, again, other = (list(itertools.islice(Corpus(seed), 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_intent_is_asked_in_many_ways() -> None:
    corpus = Corpus(3)
    for intent in INTENTS.values():
        assert len({corpus.wording(intent) for _ in range(60)}) > 45, intent.name


@pytest.mark.parametrize(("intent", "answer"), ANSWERS, ids=[intent.name for intent, _ in ANSWERS])
def test_an_answer_is_right_for_its_own_intent_only(intent: Intent, answer: str) -> None:
    assert [other for other in INTENTS.values() if judge(other, Reply(answer, ended=True))] == [intent]


def test_an_answer_that_does_not_end_is_wrong() -> None:
    intent = INTENTS["license"]
    assert not judge(intent, Reply(intent.answers[0], ended=False))


def test_every_held_out_wording_is_asked_under_every_condition() -> None:
    asked = list(cases("test"))
    assert len(asked) == 5 * sum(len(intent.test) for intent in INTENTS.values())
    assert asked == list(cases("test"))


def test_choices_and_macros_nest() -> None:
    grammar = Grammar({"who": [parse("(I|you)"), parse("we all")]})
    pattern = parse("{who} (run(| fast)|walk)")
    seen = {grammar.sample(pattern, random.Random(seed)) for seed in range(200)}
    assert seen == {f"{who} {what}" for who in ("I", "you", "we all") for what in ("run", "run fast", "walk")}
    assert grammar.count(pattern) == 9


@pytest.mark.parametrize("pattern", ["(a|b", "a)b|", "{who"])
def test_a_pattern_with_open_brackets_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(pattern)


def test_only_the_assistant_is_learned() -> None:
    turns = (Turn("hi", "Hello!"), Turn("what?", "By another.", learned=False))
    learned = [text for text, learn in segments(Conversation("Be brief.", turns)) if learn]
    assert learned == [f"Hello!{TURN_END}"]


def test_the_prompt_is_chatml_and_opens_the_assistants_turn() -> None:
    assert prompt("S", [("q", "a")], "p") == (
        f"{TURN_START}system\nS{TURN_END}\n{TURN_START}user\nq{TURN_END}\n{TURN_START}assistant\na{TURN_END}\n"
        f"{TURN_START}user\np{TURN_END}\n{TURN_START}assistant\n"
    )
