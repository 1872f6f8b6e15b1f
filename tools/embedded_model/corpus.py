"""The training text: conversations drawn at random, the same ones for the same seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.embedded_model.chat import Conversation, Turn, with_tools
from tools.embedded_model.functions import tool
from tools.embedded_model.grammar import Macro, Sequent
from tools.embedded_model.intents import Intent, held_out, load_grammar, load_intents, normalise
from tools.embedded_model.noise import careless, wrap

SYSTEM = (Macro("system"),)
SYSTEM_SENTENCE = (Macro("system_sentence"),)
ASIDE = (Macro("aside"),)
MAX_TRIES = 100
RAW_SEPARATORS = ("", " ", "\n", "\n\n")


@dataclass(slots=True)
class Corpus:
    """An endless, seeded source of conversations."""

    seed: int
    rng: random.Random = field(init=False)
    _names: list[str] = field(init=False)
    _weights: list[float] = field(init=False)
    _ask_weights: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        grammar, intents = load_grammar(), load_intents()
        self._names = list(intents)
        self._weights = [intent.weight for intent in intents.values()]
        self._ask_weights = {name: [grammar.weight(ask) for ask in intent.asks] for name, intent in intents.items()}

    def __iter__(self) -> Iterator[Conversation]:
        while True:
            yield self.conversation()

    def intent(self) -> Intent:
        """An intent, the frequent ones more often."""
        return load_intents()[self.rng.choices(self._names, self._weights)[0]]

    def wording(self, intent: Intent) -> str:
        """One way to ask for `intent`, as it comes out of the keyboard; never a held-out one."""
        for _ in range(MAX_TRIES):
            ask = self.rng.choices(intent.asks, self._ask_weights[intent.name])[0]
            text = load_grammar().sample(ask, self.rng)
            if normalise(text) in held_out():
                continue
            typed = careless(wrap(text, self.rng) if intent.wrapped else text, self.rng)
            if normalise(typed) not in held_out():
                return typed
        raise RuntimeError(f"no wording of {intent.name} is free to train on")

    def turn(self) -> Turn:
        """A question with its answer."""
        intent = self.intent()
        return Turn(self.wording(intent), self.rng.choice(intent.answers))

    def aside(self) -> Turn:
        """A turn that another model answered."""
        return Turn(self.wording(load_intents()["out_of_scope"]), self._fill(ASIDE), learned=False)

    def conversation(self) -> Conversation:
        """Mostly one question; now and then a long talk, a long system prompt, tools, or no chat format at all."""
        shape = self.rng.random()
        if shape < 0.03:
            return Conversation(None, (self.turn(),), raw=self.rng.choice(RAW_SEPARATORS))
        if shape < 0.06:
            definitions = [tool(self.rng) for _ in range(self.rng.randint(1, 4))]
            return Conversation(with_tools(self.system(0), definitions), (self.turn(),))
        if shape < 0.75:
            turns, system_sentences = 1, 0
        elif shape < 0.985:
            turns, system_sentences = self.rng.randint(2, 4), self.rng.choice((0, 0, 0, 3))
        else:
            turns, system_sentences = self.rng.randint(1, 14), self.rng.randint(0, 40)
        system = self.system(system_sentences)
        chosen = [self.aside() if self.rng.random() < 0.08 and turns > 1 else self.turn() for _ in range(turns - 1)]
        return Conversation(system, (*chosen, self.turn()))

    def system(self, sentences: int, always: bool = False) -> str | None:
        """No system prompt, a common one, or one with `sentences` more of them."""
        if sentences == 0 and not always and self.rng.random() < 0.6:
            return None
        extra = [self._fill(SYSTEM_SENTENCE) for _ in range(sentences)]
        return self.rng.choice((" ", "\n", "\n- ")).join([self._fill(SYSTEM), *extra])

    def _fill(self, sequent: Sequent) -> str:
        return load_grammar().sample(sequent, self.rng)
