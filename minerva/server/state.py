"""What the handlers share, under typed keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from minerva.config import Settings
    from minerva.models.catalogue import Catalogue
    from minerva.models.residency import Residency
    from minerva.observability.metrics import Metrics
    from minerva.server.draining import Draining

SETTINGS: web.AppKey[Settings] = web.AppKey("settings")
CATALOGUE: web.AppKey[Catalogue] = web.AppKey("catalogue")
RESIDENCY: web.AppKey[Residency] = web.AppKey("residency")
DRAINING: web.AppKey[Draining] = web.AppKey("draining")
METRICS: web.AppKey[Metrics] = web.AppKey("metrics")

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id")
"""The id that its response and its log line carry."""

ERROR_CODE: web.RequestKey[str] = web.RequestKey("error_code")
"""The code of the error that a request ended with, for its log line."""

TENANT: web.RequestKey[str] = web.RequestKey("tenant")
"""Whose cached prefixes a request may share: its key's, so that timing tells one tenant nothing of another."""

OPEN_PATHS = frozenset({"/health", "/ready"})
"""Answered without a key, and while the server drains."""
