"""From a chat request to the conversation that the worker's template renders."""

from __future__ import annotations

from typing import Any

import msgspec

from minerva.errors import RequestError, UnsupportedError
from minerva.server.openai.constraints import constraint, json_text
from minerva.server.openai.schemas import ChatRequest, ContentPart, Message
from minerva.server.openai.tools import offered_tools
from minerva.worker.protocol import ChatPrompt

NOT_HERE = ("audio", "functions", "function_call", "web_search_options")


def chat_prompt(body: ChatRequest) -> ChatPrompt:
    for field in NOT_HERE:
        if getattr(body, field) is not None:
            raise UnsupportedError(f"{field} is not supported", param=field)
    if body.modalities is not None and body.modalities != ["text"]:
        raise UnsupportedError('modalities other than ["text"] are not supported', param="modalities")
    tools, tool_choice = offered_tools(body)
    wanted = constraint(body)
    if tools is not None and tool_choice != "none" and wanted is not None:
        raise UnsupportedError("an answer held to a format cannot be combined with tools", param="tools")
    messages = [_message(message, f"messages.{i}") for i, message in enumerate(body.messages)]
    enable_thinking, template_kwargs = _template_options(body)
    return ChatPrompt(
        messages=msgspec.json.encode(messages).decode(),
        tools=tools,
        tool_choice=tool_choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=wanted,
        enable_thinking=enable_thinking,
        template_kwargs=template_kwargs,
    )


def _message(message: Message, path: str) -> dict[str, Any]:
    out: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role}
    if isinstance(message.content, list):
        out["content"] = [_part(part, f"{path}.content.{i}") for i, part in enumerate(message.content)]
    elif message.content is not None:
        out["content"] = message.content
    elif message.role != "assistant":
        raise RequestError(f"{path}.content is required", param=f"{path}.content")
    else:
        out["content"] = ""
    for field in ("name", "reasoning_content", "tool_call_id"):
        if (value := getattr(message, field)) is not None:
            out[field] = value
    if message.tool_calls:
        if message.role != "assistant":
            raise RequestError(f"{path}.tool_calls belongs to assistant messages", param=f"{path}.tool_calls")
        out["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.role == "tool" and not message.tool_call_id:
        raise RequestError(f"{path}.tool_call_id is required", param=f"{path}.tool_call_id")
    return out


def _part(part: ContentPart, path: str) -> dict[str, str]:
    if part.type not in ("text", "refusal"):
        raise UnsupportedError(f"{path}: parts of type {part.type[:40]!r} are not supported, only text", param=path)
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        raise RequestError(f"{path}.{part.type} is required", param=f"{path}.{part.type}")
    return {"type": "text", "text": text}


def _template_options(body: ChatRequest) -> tuple[bool, dict[str, str]]:
    """Whether the model may think, and the variables of the template, as JSON text."""
    given = body.chat_template_kwargs or {}
    thinking = given.get("enable_thinking", True)
    if not isinstance(thinking, bool):
        path = "chat_template_kwargs.enable_thinking"
        raise RequestError(f"{path} must be a valid boolean", param=path)
    kwargs = {name: json_text(value, f"chat_template_kwargs.{name}") for name, value in given.items()}
    if body.reasoning_effort == "none":
        thinking = False
    elif body.reasoning_effort is not None:
        kwargs["reasoning_effort"] = json_text(body.reasoning_effort, "reasoning_effort")
    return thinking, kwargs
