"""Tools and tool_choice: enforced, or refused; never ignored."""

from __future__ import annotations

from typing import Any

from minerva.errors import RequestError, UnsupportedError
from minerva.server.openai.constraints import json_text
from minerva.server.openai.schemas import ChatRequest, Tool, ToolChoice


def offered_tools(body: ChatRequest) -> tuple[str | None, str]:
    """The tools as JSON text, and none, auto or required. One named function is that tool alone, required."""
    tools = [_tool(tool, f"tools.{i}") for i, tool in enumerate(body.tools or [])]
    choice = body.tool_choice or "auto"
    if isinstance(choice, ToolChoice):
        tools, choice = _named(tools, choice), "required"
    if choice == "required" and not tools:
        raise RequestError("tool_choice asks for a call, but tools is empty", param="tool_choice")
    return (json_text(tools, "tools") if tools else None), choice


def _tool(tool: Tool, path: str) -> dict[str, Any]:
    if tool.type != "function":
        raise UnsupportedError(f"{path}: tools of type {tool.type[:40]!r} are not supported", param=f"{path}.type")
    if tool.function is None:
        raise RequestError(f"{path}.function is required", param=f"{path}.function")
    return {"type": "function", "function": tool.function.model_dump(exclude_none=True)}


def _named(tools: list[dict[str, Any]], choice: ToolChoice) -> list[dict[str, Any]]:
    if choice.type != "function":
        raise UnsupportedError(f"tool_choice of type {choice.type[:40]!r} is not supported", param="tool_choice.type")
    if choice.function is None:
        raise RequestError("tool_choice.function is required", param="tool_choice.function")
    name = choice.function.name
    chosen = [tool for tool in tools if tool["function"]["name"] == name]
    if not chosen:
        raise RequestError(f"tool_choice names {name[:256]!r}, which is not among tools", param="tool_choice")
    return chosen[:1]
