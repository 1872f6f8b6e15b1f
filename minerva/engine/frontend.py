"""From a prompt to a sequence: template, tokenise, grammar. Slow for long prompts, so never on the engine's thread."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from minerva._core import ChatParser, ChatTemplate, Grammar, Model, RenderedPrompt, Sampler
from minerva.engine.constraints import ConstraintCompiler, TokenConstraint
from minerva.engine.messages import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from minerva.engine.output import Output
from minerva.engine.params import SamplingParams
from minerva.engine.sequence import Sequence
from minerva.errors import ContextLengthError, RequestError, UnsupportedError


class Prepared(msgspec.Struct, frozen=True):
    """What a prompt became: its token ids, how its answer is constrained, and how it is to be read.

    `grammar` is what the chat template wants for tool calls; `constraint` what the caller asked for.
    """

    tokens: list[int]
    grammar: Grammar | None = None
    constraint: TokenConstraint | None = None
    chat: RenderedPrompt | None = None

    def parser(self) -> ChatParser | None:
        return self.chat.parser() if self.chat else None


class Frontend:
    """Safe to use from several threads."""

    def __init__(self, model: Model, template: ChatTemplate, *, n_ctx: int) -> None:
        self.model = model
        self.template = template
        self.n_ctx = n_ctx
        self._constraints = ConstraintCompiler(model.vocab)

    def prepare(self, prompt: Prompt, sampling: SamplingParams) -> Prepared:
        """Raises `RequestError` for a prompt that the model cannot read, `ContextLengthError` for one too long."""
        if isinstance(prompt, ChatPrompt):
            prepared = self._chat(prompt)
        else:
            prepared = Prepared(self._tokens(prompt), constraint=self._constraint(prompt))
        self._check_length(len(prepared.tokens), sampling)
        return prepared

    def sequence(
        self,
        id: int,
        prepared: Prepared,
        sampling: SamplingParams,
        emit: Callable[[Output], None],
        *,
        namespace: str = "",
        priority: int = 0,
        deadline: float | None = None,
    ) -> Sequence:
        chat = prepared.chat
        seed = secrets.randbits(32) if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        sampler = Sampler(
            self.model.vocab,
            sampling,
            seed=seed,
            grammar=prepared.grammar,
            mask=prepared.constraint.mask if prepared.constraint else None,
            stops=chat.stops if chat else (),
            shown_special=chat.preserved_tokens if chat else (),
        )
        if sampling.repeat_last_n:
            sampler.accept_prompt(prepared.tokens[-sampling.repeat_last_n :])
        return Sequence(
            id,
            list(prepared.tokens),
            sampler,
            sampling.max_tokens,
            emit,
            namespace=namespace,
            priority=priority,
            deadline=deadline,
            constraint=prepared.constraint,
            shifts=sampling.context_shift,
            wants_logprobs=sampling.top_logprobs is not None,
        )

    def render(self, prompt: ChatPrompt) -> RenderedPrompt:
        request: dict[str, Any] = {
            "messages": json.loads(prompt.messages),
            "tool_choice": prompt.tool_choice,
            "parallel_tool_calls": prompt.parallel_tool_calls,
            "enable_thinking": prompt.enable_thinking,
            "template_kwargs": prompt.template_kwargs,
            "add_generation_prompt": prompt.add_generation_prompt,
        }
        if prompt.tools:
            request["tools"] = json.loads(prompt.tools)
        return self.template.render(request)

    def _chat(self, prompt: ChatPrompt) -> Prepared:
        chat = self.render(prompt)
        if chat.supports_thinking and prompt.constraint is not None:
            # The constraint is the answer's, not the thoughts': none are asked for.
            chat = self.render(msgspec.structs.replace(prompt, enable_thinking=False))
            if chat.begins_thinking:
                raise UnsupportedError("this model always thinks first: its answer cannot be held to a format")
        tokens = self.model.vocab.tokenize(chat.prompt, add_special=True, parse_special=True)
        return Prepared(tokens, chat.grammar, self._constraint(prompt), chat)

    def _constraint(self, prompt: Prompt) -> TokenConstraint | None:
        return None if prompt.constraint is None else self._constraints.compile(prompt.constraint)

    def _tokens(self, prompt: TextPrompt | TokenPrompt) -> list[int]:
        vocab = self.model.vocab
        if isinstance(prompt, TokenPrompt):
            for token in prompt.tokens:
                if not 0 <= token < len(vocab):
                    raise RequestError(f"token id {token} is not from 0 to {len(vocab) - 1}", param="prompt")
            return prompt.tokens
        special, parse = prompt.add_special, prompt.parse_special
        if prompt.suffix is None:
            return vocab.tokenize(prompt.text, add_special=special, parse_special=parse)
        prefix_id, suffix_id, middle_id = vocab.fim
        if min(prefix_id, suffix_id, middle_id) < 0:
            raise UnsupportedError("this model has no fill-in-the-middle tokens: suffix cannot be used", param="suffix")
        before = vocab.tokenize(prompt.text, parse_special=False)
        after = vocab.tokenize(prompt.suffix, parse_special=False)
        start = [vocab.bos] if special and vocab.adds_bos else []
        return [*start, prefix_id, *before, suffix_id, *after, middle_id]

    def _check_length(self, n: int, sampling: SamplingParams) -> None:
        if n == 0:
            raise RequestError("the prompt is empty", param="prompt")
        if n >= self.n_ctx:
            raise ContextLengthError(
                f"the prompt has {n} tokens, the context holds {self.n_ctx} and needs room for an answer",
                param="messages",
            )
