"""Random wordings from patterns: `(a|b)` is a choice, `{name}` a macro; both nest."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

ONSETS = (*"bcdfghjklmnprstvwz", "br", "ch", "dr", "fl", "gr", "pl", "qu", "sh", "st", "th", "tr")
VOWELS = "aeiouaeiouy"
CODAS = (*"bdgklmnprstxz", *[""] * 13)
ENDINGS = ("", "", "", "s", "ing", "er", "ed", "tion")


@dataclass(frozen=True, slots=True)
class Text:
    value: str


@dataclass(frozen=True, slots=True)
class Macro:
    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    options: tuple["Sequent", ...]


Node: TypeAlias = Text | Macro | Choice
Sequent: TypeAlias = tuple[Node, ...]


def parse(pattern: str) -> Sequent:
    """Parse a pattern; raises ValueError where brackets do not match."""
    nodes, end = _sequence(pattern, 0)
    if end != len(pattern):
        raise ValueError(f"unexpected {pattern[end]!r} at {end} in {pattern!r}")
    return nodes


def _sequence(pattern: str, at: int) -> tuple[Sequent, int]:
    nodes: list[Node] = []
    start = at
    while at < len(pattern) and pattern[at] not in "|)":
        if pattern[at] not in "({":
            at += 1
            continue
        if at > start:
            nodes.append(Text(pattern[start:at]))
        if pattern[at] == "{":
            close = pattern.index("}", at)
            nodes.append(Macro(pattern[at + 1 : close]))
            at = close + 1
        else:
            choice, at = _choice(pattern, at)
            nodes.append(choice)
        start = at
    if at > start:
        nodes.append(Text(pattern[start:at]))
    return tuple(nodes), at


def _choice(pattern: str, at: int) -> tuple[Choice, int]:
    options: list[Sequent] = []
    while at < len(pattern) and pattern[at] in "(|":
        option, at = _sequence(pattern, at + 1)
        options.append(option)
    if at == len(pattern):
        raise ValueError(f"missing ')' in {pattern!r}")
    return Choice(tuple(options)), at + 1


@dataclass(frozen=True, slots=True)
class Grammar:
    """Macros, each a list of patterns of which one is taken; `{num}` and `{word}` are made up on the spot."""

    macros: Mapping[str, Sequence[Sequent]]

    def sample(self, sequent: Sequent, rng: random.Random) -> str:
        """One wording, with single spaces."""
        return " ".join(self._expand(sequent, rng).split())

    def _expand(self, sequent: Sequent, rng: random.Random) -> str:
        parts: list[str] = []
        for node in sequent:
            match node:
                case Text(value):
                    parts.append(value)
                case Choice(options):
                    parts.append(self._expand(rng.choice(options), rng))
                case Macro("num"):
                    parts.append(str(rng.randint(0, 10 ** rng.randint(1, 4))))
                case Macro("word"):
                    parts.append(made_up_word(rng))
                case Macro(name):
                    parts.append(self._expand(rng.choice(self.macros[name]), rng))
        return "".join(parts)

    def count(self, sequent: Sequent) -> float:
        """How many derivations a pattern has (made-up words count as a thousand)."""
        total = 1.0
        for node in sequent:
            match node:
                case Choice(options):
                    total *= sum(self.count(option) for option in options)
                case Macro("num" | "word"):
                    total *= 1000
                case Macro(name):
                    total *= sum(self.count(option) for option in self.macros[name])
        return total

    def weight(self, sequent: Sequent) -> float:
        """How often to use a pattern: with the logarithm of its size."""
        return 1 + math.log2(self.count(sequent))


def made_up_word(rng: random.Random) -> str:
    """A word that means nothing, so that the unknown is recognised as unknown."""
    syllables = (rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.randint(1, 3)))
    return "".join(syllables) + rng.choice(ENDINGS)
