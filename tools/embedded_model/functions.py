"""Made-up tool definitions, so that a request that brings tools along does not look strange."""

import json
import random

NAMES = (
    "get_weather", "get_time", "list_files", "read_file", "write_file", "run_command", "search", "set_value", "bash",
    "edit", "web_search", "calculate", "send_mail", "lookup", "todo_write", "glob", "grep", "fetch",
)  # fmt: skip
FIELDS = ("city", "path", "query", "name", "command", "content", "url", "pattern", "text", "limit")
PURPOSES = ("Use it when the user asks.", "Returns a string.", "Does one thing.", "Use it with care.", "")


def tool(rng: random.Random) -> str:
    """One OpenAI tool definition as JSON."""
    name, fields = rng.choice(NAMES), rng.sample(FIELDS, rng.randint(1, 3))
    described = {field: {"type": "string", "description": f"The {field}."} for field in fields}
    parameters = {"type": "object", "properties": described, "required": fields[:1]}
    description = f"{name.replace('_', ' ').capitalize()}. {rng.choice(PURPOSES)}".strip()
    return json.dumps(
        {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
    )


def call(rng: random.Random) -> str:
    """One tool call as JSON."""
    return json.dumps({"name": rng.choice(NAMES), "arguments": {rng.choice(FIELDS): str(rng.random())}})
