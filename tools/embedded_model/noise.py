"""Wordings as people type them: careless case, punctuation and spelling."""

import random
import re

from tools.embedded_model.grammar import Macro
from tools.embedded_model.intents import load_grammar

OPENER = (Macro("opener"),)
CLOSER = (Macro("closer"),)

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {row[at]: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in ROWS for at in range(len(row))}
PROPER = {"minerva": "Minerva", "openai": "OpenAI", "gpu": "GPU", "gguf": "GGUF", "api": "API", "llm": "LLM", "i": "I"}


def wrap(text: str, rng: random.Random) -> str:
    """Put small talk before or after a question, sometimes."""
    if rng.random() < 0.25:
        text = f"{load_grammar().sample(OPENER, rng)} {text}"
    if rng.random() < 0.15:
        text = f"{text} {load_grammar().sample(CLOSER, rng)}".replace(" ,", ",")
    return text


def punctuate(text: str, rng: random.Random) -> str:
    """Vary case and final punctuation."""
    style = rng.random()
    if style < 0.45:
        text = re.sub(r"\w+", lambda word: PROPER.get(word[0], word[0]), text[:1].upper() + text[1:])
    elif style < 0.49:
        text = text.upper()
    elif style < 0.52:
        text = text.title()
    ending = rng.choices(("", "?", ".", "!", "??", " ?", "...", "?!"), (40, 38, 10, 5, 2, 2, 2, 1))[0]
    return text + ending


def misspell(text: str, rng: random.Random) -> str:
    """One typing error in one of the longer words."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not long:
        return text
    at = rng.choice(long)
    word = words[at]
    spot = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(4)
    if kind == 0:
        word = word[:spot] + word[spot + 1 :]
    elif kind == 1:
        word = word[:spot] + word[spot] + word[spot:]
    elif kind == 2:
        word = word[:spot] + word[spot + 1] + word[spot] + word[spot + 2 :]
    else:
        word = word[:spot] + rng.choice(NEIGHBOURS.get(word[spot].lower(), word[spot])) + word[spot + 1 :]
    words[at] = word
    return " ".join(words)


def careless(text: str, rng: random.Random) -> str:
    """Everything above, each now and then; sometimes a word is lost or two change places."""
    words = text.split(" ")
    if len(words) > 4 and rng.random() < 0.06:
        del words[rng.randrange(len(words))]
    if len(words) > 4 and rng.random() < 0.03:
        at = rng.randrange(len(words) - 1)
        words[at], words[at + 1] = words[at + 1], words[at]
    text = " ".join(words)
    while rng.random() < 0.2:
        text = misspell(text, rng)
    return punctuate(text, rng)
