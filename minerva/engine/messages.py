"""What goes into a generation and what comes out of it: prompts and events.

They are msgspec structs with tags, so that a worker's socket carries them as they are.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from minerva import errors

ConstraintKind: TypeAlias = Literal["json_schema", "regex", "choice", "grammar"]


class Constraint(msgspec.Struct, frozen=True, array_like=True):
    """What the answer must match. `source`: a JSON schema as text, a regex, a JSON list of choices, or GBNF."""

    kind: ConstraintKind
    source: str


class ChatPrompt(msgspec.Struct, frozen=True, tag="chat", kw_only=True, omit_defaults=True):
    """A conversation in OpenAI's shape, as JSON text, for the model's own template."""

    messages: str
    tools: str | None = None
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    constraint: Constraint | None = None
    enable_thinking: bool = True
    template_kwargs: dict[str, str] = {}
    add_generation_prompt: bool = True


class TextPrompt(msgspec.Struct, frozen=True, tag="text", kw_only=True, omit_defaults=True):
    """Plain text, tokenised as it is. `suffix` asks for fill-in-the-middle."""

    text: str
    suffix: str | None = None
    add_special: bool = True
    parse_special: bool = True
    constraint: Constraint | None = None


class TokenPrompt(msgspec.Struct, frozen=True, tag="tokens", kw_only=True, omit_defaults=True):
    tokens: list[int]
    constraint: Constraint | None = None


Prompt: TypeAlias = ChatPrompt | TextPrompt | TokenPrompt


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Natural log-probability of one token under the raw logits, before any sampler."""

    token: str
    token_bytes: bytes
    token_id: int
    logprob: float
    top: list[TokenLogprob] = []


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True):
    """A piece of one call: `id` and `name` come with the first piece, `arguments` is appended."""

    index: int
    id: str
    name: str
    arguments: str


class _Event(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """`id` is the request's."""

    id: int


class Started(_Event, frozen=True):
    """The first token is here: how long the prompt was and how much of it came from the prefix cache."""

    prompt_tokens: int
    cached_tokens: int


class Delta(_Event, frozen=True):
    text: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCallDelta] = []
    logprobs: list[TokenLogprob] = []


class Finished(_Event, frozen=True):
    """`reason`: stop, length or tool_calls. `stop_sequence`: the stop string that ended it, if one did.

    Times are in seconds: queued until admitted, prompt until the first token, decode until the last.
    """

    reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    stop_sequence: str | None = None
    queued_s: float = 0.0
    prompt_s: float = 0.0
    decode_s: float = 0.0


class Failed(_Event, frozen=True):
    error: str
    message: str
    param: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, id: int, error: errors.MinervaError) -> Failed:
        return cls(id, type(error).__name__, error.message, error.param, error.retry_after)

    def exception(self) -> errors.MinervaError:
        kind = errors.BY_NAME.get(self.error, errors.MinervaError)
        return kind(self.message, param=self.param, retry_after=self.retry_after)


Event: TypeAlias = Started | Delta | Finished | Failed
