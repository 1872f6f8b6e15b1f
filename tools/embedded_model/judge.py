"""When an answer is right."""

from dataclasses import dataclass

from tools.embedded_model.intents import Intent


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, and whether it ended its turn by itself."""

    text: str
    ended: bool


def judge(intent: Intent, reply: Reply) -> bool:
    """True when the reply holds every key fact of the intent and the turn was ended."""
    text = reply.text.lower()
    return reply.ended and all(fact in text for fact in intent.facts)
