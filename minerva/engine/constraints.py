"""Answers held to a schema, a regex, a choice or a grammar, by masks of the tokens that may come next.

llguidance compiles a constraint and computes its masks; a mask is ready before the logits are, on another thread,
so a constrained sequence costs what a free one does. Nothing fails open: what cannot be enforced is refused.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import llguidance
import numpy as np
from llguidance.gbnf_to_lark import gbnf_to_lark
from numpy.typing import NDArray

from minerva.engine.messages import Constraint
from minerva.errors import EngineError, RequestError

if TYPE_CHECKING:
    from minerva._core import Vocab

CAPACITY = 128
"""Compiled constraints kept, the least recently used first out."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
PARAMS = {"json_schema": "response_format", "regex": "guided_regex", "choice": "guided_choice", "grammar": "grammar"}

WHITESPACE = r"[ ]?|\n{1,2}[ \t]{0,20}"
"""Between the tokens of JSON: a model cannot fill the rest of its context with blanks."""


class TokenConstraint:
    """One answer's constraint: `fill` computes the mask for its next token, `accept` moves on by one.

    `mask` has a bit for each token, 32 to a word, lowest bit first; its place in memory stays.
    """

    def __init__(self, matcher: llguidance.LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self.mask: NDArray[np.uint32] = np.zeros((n_vocab + 31) // 32, dtype=np.uint32)

    def fill(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)

    def accept(self, token: int) -> None:
        """Raises `EngineError` for a token that the mask did not allow."""
        if not self._matcher.consume_token(token):
            raise EngineError(f"the constraint cannot go on: {self._matcher.get_error()}")

    @property
    def complete(self) -> bool:
        """True when nothing may follow but the end."""
        return bool(self._matcher.is_stopped())


class ConstraintCompiler:
    """Compiles constraints for one vocabulary. Safe to use from several threads."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._lock = threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[Constraint, llguidance.LLMatcher] = OrderedDict()

    def compile(self, constraint: Constraint) -> TokenConstraint:
        """Raises `RequestError` that names what cannot be enforced."""
        with self._lock:
            matcher = self._compiled.get(constraint)
            if matcher is None:
                matcher = self._compiled[constraint] = self._build(constraint)
                if len(self._compiled) > CAPACITY:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(constraint)
            return TokenConstraint(matcher.deep_copy(), len(self._vocab))

    def _build(self, constraint: Constraint) -> llguidance.LLMatcher:
        param = PARAMS[constraint.kind]
        if len(constraint.source) > MAX_BYTES:
            raise RequestError(f"{param} of {len(constraint.source)} bytes is over {MAX_BYTES}", param=param)
        try:
            matcher = llguidance.LLMatcher(self._llguidance_tokenizer(), _grammar(constraint), log_level=0)
        except RequestError:
            raise
        except Exception as e:  # the GBNF converter has no exception of its own
            raise RequestError(f"{param} cannot be enforced: {e}", param=param) from None
        first = matcher.deep_copy()
        TokenConstraint(first, len(self._vocab)).fill()  # some are too complex only once they are used
        for tried in (matcher, first):
            if tried.is_error():
                reason = " ".join(tried.get_error().split())
                raise RequestError(f"{param} cannot be enforced: {reason[:500]}", param=param)
        return matcher

    def _llguidance_tokenizer(self) -> llguidance.LLTokenizer:
        if self._tokenizer is None:
            wrapper = llguidance.TokenizerWrapper(_Tokens(self._vocab))
            self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=len(self._vocab))
        return self._tokenizer


class _Tokens:
    """A vocabulary as llguidance reads it: special tokens begin with the byte 255."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self.eos_token_id = vocab.eos
        self.bos_token_id = vocab.bos if vocab.bos >= 0 else None
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        for token in range(len(vocab)):
            piece = vocab.piece(token)
            if piece and (vocab.is_eog(token) or not vocab.piece(token, special=False)):
                self.special_token_ids.append(token)
                piece = b"\xff" + piece
            self.tokens.append(piece)

        self._before = self._spaced_start()

    def __call__(self, text: str | bytes) -> list[int]:
        raw = text.encode() if isinstance(text, str) else text
        return self._vocab.tokenize(self._before + raw, parse_special=False)[self._skip :]

    def _spaced_start(self) -> bytes:
        """What to put before a text so that its own tokens are those of the middle of a text, not of a beginning.

        SentencePiece adds a space to the beginning, which the constraint would then both demand and refuse.
        """
        start = b"\x02"
        first = self._vocab.tokenize("[", parse_special=False)
        spaced = bool(first) and self._vocab.piece(first[0]).startswith(b" ")
        self._skip = len(self._vocab.tokenize(start, parse_special=False)) if spaced else 0
        return start if spaced else b""


def _grammar(constraint: Constraint) -> str:
    source = constraint.source
    if constraint.kind == "json_schema":
        _check_depth(source)
        return llguidance.LLMatcher.grammar_from_json_schema(source, defaults={"whitespace_pattern": WHITESPACE})
    if constraint.kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(source)
    if constraint.kind == "choice":
        choices = " | ".join(json.dumps(choice) for choice in json.loads(source))
        return llguidance.LLMatcher.grammar_from_lark(f"start: {choices}")
    try:
        lark = gbnf_to_lark(source)
    except Exception as e:  # it raises no narrower class
        raise ValueError(str(e)) from None
    return llguidance.LLMatcher.grammar_from_lark(lark)


def _check_depth(json_schema: str) -> None:
    """Before anything recurses over it."""
    level = [json.loads(json_schema)]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise RequestError(f"a JSON schema deeper than {MAX_DEPTH} levels is not accepted", param="response_format")


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if isinstance(node, list) else []
