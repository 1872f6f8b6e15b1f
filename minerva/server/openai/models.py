"""GET /v1/models and /v1/models/{id}, in one shape that OpenAI's and Anthropic's packages both read."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

from aiohttp import web

from minerva.models.catalogue import CatalogueEntry
from minerva.server.json_response import json_response
from minerva.server.state import CATALOGUE, RESIDENCY, SETTINGS


async def list_models(request: web.Request) -> web.Response:
    """An alias is listed as a model of its own: some clients only look for certain names."""
    catalogue = request.app[CATALOGUE]
    await asyncio.to_thread(catalogue.refresh)
    data = [_model(request, entry, name) for entry in catalogue.entries() for name in (entry.id, *entry.aliases)]
    return json_response(
        {
            "object": "list",
            "data": data,
            "has_more": False,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
        }
    )


async def get_model(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    entry = request.app[CATALOGUE].get(name)
    return json_response(_model(request, entry, name if name in entry.aliases else entry.id))


def _model(request: web.Request, entry: CatalogueEntry, name: str) -> dict[str, Any]:
    metadata = entry.metadata
    context = _context_window(request, entry)
    return {
        "id": name,
        "object": "model",
        "type": "model",
        "display_name": metadata.name,
        "created": entry.created,
        "created_at": datetime.fromtimestamp(entry.created, timezone.utc).isoformat().replace("+00:00", "Z"),
        "owned_by": "minerva" if entry.source == "embedded" else "local",
        "root": entry.id,
        "context_window": context,
        "max_output_tokens": context,
        "quantization": metadata.quantization,
        "file_size_mb": round(metadata.file_size / 1e6, 2),
        "tensor_count": metadata.tensor_count,
        "architecture": metadata.architecture,
        "parameters": metadata.parameters,
    }


def _context_window(request: web.Request, entry: CatalogueEntry) -> int:
    """What one request may use: of a loaded model as it is, of another as it would be asked for."""
    for resident, worker in request.app[RESIDENCY].resident():
        if resident.id == entry.id and worker.model is not None:
            return worker.model.n_ctx
    return request.app[SETTINGS].ctx_size or entry.metadata.context_length
