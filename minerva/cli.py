"""The `minerva` command."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from minerva import __version__
from minerva.cli_options import with_settings
from minerva.config import Settings
from minerva.errors import ConfigError, MinervaError

DEVICES_TIMEOUT_S = 60

app = typer.Typer(
    help="Minerva, a local LLM server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: list[str] | None = None) -> None:
    """Run and exit: 0 done, 1 failed, 2 wrongly called. A failure is one line on stderr."""
    try:
        status = app(argv, prog_name="minerva", standalone_mode=False)
    except ConfigError as error:
        status = _fail(error.message, 2)
    except MinervaError as error:
        status = _fail(error.message, 1)
    except (typer.Abort, KeyboardInterrupt):
        status = 130
    except Exception as error:
        # typer brings its own copy of click in new versions: an error of usage is known by its shape.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # empty after the help that a call without a command prints
        status = _fail(f"{message} (see --help)", 2) if message else 2
    sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> int:
    print(f"minerva: {message}", file=sys.stderr)
    return status


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"minerva {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example:  minerva serve -m qwen3-0.6b-q4_0.gguf -c 8192 -np 4 --port 8080\n\n"
    "Every option is also an environment variable (--ctx-size: MINERVA_CTX_SIZE) and a key of ~/.minerva/config.json "
    "(ctx_size). Flags win over variables, variables over the file."
)
@with_settings(Settings.model_fields)
def serve(
    settings: Settings,
    verbose: Annotated[
        bool,
        typer.Option("-v", "--verbose", help="Log more, and say where settings come from.", rich_help_panel="Logging"),
    ] = False,
) -> None:
    """Serve models to OpenAI clients on this machine."""
    from minerva.server import lifecycle

    if verbose:
        settings = settings.model_copy(update={"log_level": "debug"})
        for name, source in settings.sources.items():
            print(
                f"{name} = {'(hidden)' if name == 'api_key' else getattr(settings, name)}  ({source})", file=sys.stderr
            )
    lifecycle.serve(settings)


@app.command("list")
@with_settings(["model", "models_dir", "aliases"])
def list_models(settings: Settings) -> None:
    """List the models that can be served."""
    from minerva.models.catalogue import Catalogue
    from minerva.units import count, size

    catalogue = Catalogue.of(settings)
    table = Table("id", "architecture", "parameters", "quantization", "size", "context", "aliases", box=None)
    for entry in catalogue.entries():
        model = entry.metadata
        figures = (count(model.parameters), model.quantization, size(model.file_size), str(model.context_length))
        table.add_row(entry.id, model.architecture, *figures, ", ".join(entry.aliases))
    _print_table(table)
    for path, reason in catalogue.rejected.items():
        print(f"skipped {path}: {reason.removeprefix(path.name + ': ')}", file=sys.stderr)


@app.command()
def devices() -> None:
    """List the devices that models can run on."""
    command = [sys.executable, "-m", "minerva.worker.devices"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEVICES_TIMEOUT_S)
        found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else []
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise MinervaError(f"the devices could not be listed: {error}") from None
    if done.returncode:
        raise MinervaError(f"the devices could not be listed: {(done.stderr.strip() or 'it crashed').splitlines()[-1]}")
    from minerva.units import size

    table = Table("name", "description", "type", "memory", "free", box=None)
    for device in found:
        memory = (size(device["memory_total"]), size(device["memory_free"]))
        table.add_row(device["name"], device["description"], device["kind"], *memory)
    _print_table(table)


def _print_table(table: Table) -> None:
    """As wide as it is when it goes to a pipe: a cut id is of no use to a script."""
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


@app.command()
def version() -> None:
    """Print the version."""
    _print_version(True)
