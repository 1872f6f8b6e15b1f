"""What the model can be asked: one intent per table of `intents/*.toml`."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomllib

from tools.embedded_model.grammar import Grammar, Sequent, parse

FOLDER = Path(__file__).parent / "intents"
FILLERS = ("macros", "words")


@dataclass(frozen=True, slots=True)
class Intent:
    """Wordings and answers of one thing to ask.

    `facts` must all be in an answer, in lower case, for it to be right. `dev` wordings steer the work on the
    corpus; `test` wordings are only measured, and no pattern may produce one (`reach.py`). Neither is trained on.
    Small talk may surround a wording of a `wrapped` intent.
    """

    name: str
    facts: tuple[str, ...]
    answers: tuple[str, ...]
    asks: tuple[Sequent, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    wrapped: bool
    weight: float


@cache
def load_intents() -> dict[str, Intent]:
    """All intents by name, in file order."""
    intents: dict[str, Intent] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        if path.stem in FILLERS:
            continue
        for name, table in tomllib.loads(path.read_text("utf-8")).items():
            intents[name] = Intent(
                name=name,
                facts=tuple(table["facts"]),
                answers=tuple(table["answers"]),
                asks=tuple(parse(ask) for ask in table["asks"]),
                dev=tuple(table["dev"]),
                test=tuple(table["test"]),
                wrapped=table.get("wrapped", True),
                weight=table.get("weight", 1.0),
            )
    return intents


@cache
def load_grammar() -> Grammar:
    """The macros and word lists that the wordings refer to."""
    macros: dict[str, list[Sequent]] = {}
    for stem in FILLERS:
        for name, value in tomllib.loads((FOLDER / f"{stem}.toml").read_text("utf-8")).items():
            macros[name] = [parse(value)] if isinstance(value, str) else [parse(word) for word in value]
    return Grammar(macros)


def normalise(wording: str) -> str:
    """Lower case, letters and digits only: wordings that differ in case or punctuation are the same wording."""
    return " ".join(re.findall(r"[a-z0-9]+", wording.lower().replace("'", "")))


@cache
def held_out() -> frozenset[str]:
    """Every normalised wording that must not be trained on."""
    return frozenset(normalise(text) for intent in load_intents().values() for text in (*intent.dev, *intent.test))
