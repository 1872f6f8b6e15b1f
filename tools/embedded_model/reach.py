"""Whether a pattern can produce a wording: what is measured must be out of reach of what is trained on."""

import re
from functools import cache

from tools.embedded_model.grammar import Choice, Grammar, Macro, Sequent, Text
from tools.embedded_model.intents import Intent, load_grammar, normalise

NEVER = "(?!)"


def reachable(intent: Intent, wording: str) -> bool:
    """True when a pattern of `intent` yields `wording`, small talk around it included, typing errors left aside."""
    letters = normalise(wording).replace(" ", "")
    return any(pattern.fullmatch(letters) for pattern in _patterns(intent.asks))


@cache
def _patterns(asks: tuple[Sequent, ...]) -> list[re.Pattern[str]]:
    grammar = load_grammar()
    opener, closer = (_regex((Macro(macro),), grammar) for macro in ("opener", "closer"))
    return [re.compile(f"(?:{opener})?{_regex(ask, grammar)}(?:{closer})?") for ask in asks]


def _regex(sequent: Sequent, grammar: Grammar) -> str:
    """A regular expression over letters and digits alone, so that spacing and punctuation do not matter."""
    parts: list[str] = []
    for node in sequent:
        match node:
            case Text(value):
                parts.append(normalise(value).replace(" ", ""))
            case Choice(options):
                parts.append(_any(options, grammar))
            case Macro("num"):
                parts.append("[0-9]+")
            case Macro("word"):
                parts.append(NEVER)
            case Macro(name):
                parts.append(_any(tuple(grammar.macros[name]), grammar))
    return "".join(parts)


def _any(options: tuple[Sequent, ...], grammar: Grammar) -> str:
    return "(?:" + "|".join(_regex(option, grammar) for option in options) + ")"
