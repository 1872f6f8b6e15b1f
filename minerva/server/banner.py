"""What a person reads when the server starts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from rich.console import Console
from rich.text import Text

from minerva import __version__
from minerva.models.catalogue import CatalogueEntry
from minerva.units import count, size
from minerva.worker.protocol import WorkerModel


class Banner:
    """Colours on a terminal, plain lines elsewhere. Lines are never wrapped, so that they can be pasted."""

    def __init__(self, url: str, *, needs_key: bool, models_dir: Path) -> None:
        self._url = url
        self._needs_key = needs_key
        self._models_dir = models_dir
        self._console = Console(highlight=False, soft_wrap=True)

    def loading(self, entry: CatalogueEntry) -> None:
        self._print(Text(f"Minerva {__version__}", "bold"))
        self._row("address", f"{self._url}/v1", "cyan")
        self._row("loading", f"{entry.id} ({size(entry.metadata.file_size)}) …")

    def skipped(self, reason: str) -> None:
        self._row("skipped", reason, "yellow")

    def ready(self, entry: CatalogueEntry, model: WorkerModel) -> None:
        about = entry.metadata
        self._row("model", f"{entry.id} ({about.quantization}, {count(about.parameters)} parameters)", "cyan")
        self._row("device", f"{model.device}, {model.gpu_layers} layers" if model.gpu_layers else model.device)
        self._row("context", f"{model.n_ctx:,} tokens × {model.n_slots} slots")
        for note in model.notes:
            self._row("note", note, "yellow")
        if entry.source == "embedded":
            self._row("note", "this is the small model that comes with Minerva, for trying things out", "yellow")
            self._row("next", f"put a .gguf file into {self._models_dir} and start again, or pass -m FILE", "yellow")
        self._row("try", self._curl(entry.id))
        self._print(Text("ready", "bold green"))

    def stopping(self, running: int, grace_s: float) -> None:
        waits = f"{running} running request{'s' * (running != 1)} may finish, at most {grace_s:g} s; again: at once"
        self._print(Text(f"stopping: {waits}" if running else "stopping", "bold"))

    def _curl(self, model: str) -> str:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
        key = " -H 'Authorization: Bearer YOUR_KEY'" if self._needs_key else ""
        return f"curl {self._url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"

    def _row(self, name: str, value: str, style: str = "") -> None:
        self._print(Text.assemble((f"  {name:<9}", "dim"), (value, style)))

    def _print(self, text: Text) -> None:
        self._console.print(text)
        self._console.file.flush()
