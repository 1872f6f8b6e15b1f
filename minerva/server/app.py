"""The aiohttp application: routes, and what stands before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from minerva.observability.metrics import Metrics
from minerva.server import access_log, metrics_page, operations, queue_page, text_tools
from minerva.server.api_keys import key_guard
from minerva.server.cors import Origins
from minerva.server.draining import Draining, count_requests
from minerva.server.error_responses import render_errors
from minerva.server.host_guard import host_guard
from minerva.server.openai.chat import chat_completions
from minerva.server.openai.completions import completions
from minerva.server.openai.models import get_model, list_models
from minerva.server.protocol import refuse_crowd
from minerva.server.state import CATALOGUE, DRAINING, METRICS, RESIDENCY, SETTINGS

if TYPE_CHECKING:
    from minerva.config import Settings
    from minerva.models.catalogue import Catalogue
    from minerva.models.residency import Residency


def create_app(settings: Settings, catalogue: Catalogue, residency: Residency) -> web.Application:
    """To be served by `protocol.Runner`, which sets the limits that come before any request."""
    origins = Origins(settings.cors_origins)
    app = web.Application(
        middlewares=[
            access_log.log_access,
            render_errors,
            refuse_crowd,
            host_guard(settings.host, settings.allowed_hosts),
            origins.guard(),
            key_guard(settings.api_key_digests()),
            count_requests,
        ]
    )
    app[SETTINGS] = settings
    app[CATALOGUE] = catalogue
    app[RESIDENCY] = residency
    app[DRAINING] = Draining()
    app[METRICS] = Metrics()
    app.on_response_prepare.append(access_log.mark_response)
    app.on_response_prepare.append(origins.mark)
    app.add_routes(
        [
            web.get("/", operations.index),
            web.get("/health", operations.health),
            web.get("/ready", operations.ready),
            web.get("/metrics", metrics_page.metrics),
            web.get("/queue", queue_page.queue),
            web.get("/v1/models", list_models),
            web.get("/v1/models/{id:.+}", get_model),
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/completions", completions),
            web.post("/tokenize", text_tools.tokenize),
            web.post("/detokenize", text_tools.detokenize),
            web.post("/apply-template", text_tools.apply_template),
        ]
    )
    return app
