"""The chat format: ChatML with Hermes-style tool calls, as libcommon recognises it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

BEFORE_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
AFTER_TOOLS = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)

TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- @BEFORE@ }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- @AFTER@ + '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) or (message.role == 'assistant' \
and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""".replace("@BEFORE@", json.dumps(BEFORE_TOOLS)).replace("@AFTER@", json.dumps(AFTER_TOOLS))


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; an answer that is not `learned` is only context."""

    user: str
    assistant: str
    learned: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in the chat format; or, where `raw` is a separator, one question and answer without any format."""

    system: str | None
    turns: tuple[Turn, ...]
    raw: str | None = None


def with_tools(system: str | None, tools: Sequence[str]) -> str:
    """The system prompt that the template makes of `system` and tool definitions in JSON."""
    start = "" if system is None else f"{system}\n\n"
    return start + BEFORE_TOOLS + "".join(f"\n{tool}" for tool in tools) + AFTER_TOOLS


def segments(conversation: Conversation) -> list[tuple[str, bool]]:
    """The rendered conversation in pieces, each with whether the model must learn to produce it."""
    if conversation.raw is not None:
        turn = conversation.turns[0]
        return [(turn.user + conversation.raw, False), (turn.assistant + TURN_END, True)]
    pieces: list[tuple[str, bool]] = []
    if conversation.system is not None:
        pieces.append((f"{TURN_START}system\n{conversation.system}{TURN_END}\n", False))
    for turn in conversation.turns:
        pieces.append((f"{TURN_START}user\n{turn.user}{TURN_END}\n{TURN_START}assistant\n", False))
        pieces += [(f"{turn.assistant}{TURN_END}", turn.learned), ("\n", False)]
    return pieces


def prompt(system: str | None, history: Sequence[tuple[str, str]], question: str) -> str:
    """What the model reads before it answers `question`."""
    turns = tuple(Turn(*pair) for pair in history)
    rendered = "".join(text for text, _ in segments(Conversation(system, turns)))
    return f"{rendered}{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n"
