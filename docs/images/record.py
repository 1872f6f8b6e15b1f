"""Writes serve.svg beside this file: what a terminal shows when the embedded model is served and asked.

    python docs/images/record.py

Everything in the picture is what the commands printed. The server has an empty home of its own.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

OUT = Path(__file__).with_name("serve.svg")
HOME = Path("/tmp/home")
WIDTH = 120


def main() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    HOME.mkdir()
    environment = {**os.environ, "HOME": str(HOME), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    prompt(console, "python -m minerva.serve")
    command = [sys.executable, "-m", "minerva.serve"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        ask = started(console, server).replace("curl", "curl -s", 1) + " | python -m json.tool"
        console.print()
        prompt(console, ask)
        asked_for = ask.replace("python", sys.executable)
        asked = subprocess.run(asked_for, shell=True, capture_output=True, text=True, check=True)
        console.print(Text(asked.stdout.rstrip()))
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(HOME)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="Minerva"), flags=re.DOTALL)  # no fonts from afar
    OUT.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def started(console: Console, server: subprocess.Popen[str]) -> str:
    """The line that the server gives to paste, when it is ready."""
    assert server.stdout is not None
    paste = ""
    for line in server.stdout:
        text = Text.from_ansi(line.rstrip("\n"))
        console.print(text)
        if text.plain.startswith("  try "):
            paste = text.plain.removeprefix("  try ").strip()
        if text.plain == "ready":
            return paste
    raise SystemExit("the server did not start")


def prompt(console: Console, command: str) -> None:
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))


if __name__ == "__main__":
    main()
