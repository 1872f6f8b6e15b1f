"""Request bodies of chat completions and completions.

Strict: a boolean is no number, a string is no integer. Unknown fields are ignored; null means absent.
Ranges that `SamplingParams` checks are not checked again here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

MAX_CHOICES = 128
MAX_MESSAGES = 100_000
MAX_TOOLS = 1024


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


class FunctionCall(Body):
    name: Annotated[str, Field(min_length=1)]
    arguments: str


class ToolCall(Body):
    type: Literal["function"] = "function"
    function: FunctionCall
    id: str = ""


class ContentPart(Body):
    type: str
    text: str | None = None
    refusal: str | None = None


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    type: str
    function: Function | None = None


class NamedFunction(Body):
    name: str


class ToolChoice(Body):
    type: str
    function: NamedFunction | None = None


class JsonSchema(Body):
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class StreamOptions(Body):
    include_usage: bool | None = None


class SamplingBody(Body):
    """What both endpoints take. `seed` -1 is llama-server's word for a random one; a smaller `priority` goes first;
    `timeout_s` is the time a request may take, queueing included.
    """

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: Annotated[list[str], Field(min_length=1)] | None = None
    context_shift: bool | None = None
    cache_prompt: bool | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=7 * 86400)] | None = None
    user: str | None = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        for key in value or ():
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise ValueError(f"has keys that are token ids in decimal, not {key[:40]!r}")
        return value


class ChatRequest(SamplingBody):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None


TokenId: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]


def _shape(prompt: object) -> str | None:
    """Which of the four a prompt is meant to be, by its first element."""
    if not isinstance(prompt, list):
        return "text" if isinstance(prompt, str) else None
    first = prompt[0] if prompt else ""
    return "texts" if isinstance(first, str) else "token lists" if isinstance(first, list) else "tokens"


CompletionPrompt: TypeAlias = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Tag("texts")]
    | Annotated[list[TokenId], Tag("tokens")]
    | Annotated[list[list[TokenId]], Tag("token lists")],
    Discriminator(
        _shape,
        custom_error_type="prompt_shape",
        custom_error_message="must be a text, texts, tokens or lists of tokens",
    ),
]


class CompletionRequest(SamplingBody):
    prompt: CompletionPrompt
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None
