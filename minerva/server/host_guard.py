"""Host allow-list: a web page that points its own name at this address (DNS rebinding) is refused."""

from __future__ import annotations

import ipaddress

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from minerva.errors import ForbiddenError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(authority: str) -> str:
    """`[::1]:80` → `::1`, `Example.com.:80` → `example.com`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].rstrip(".").lower()


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def host_guard(bound: str, allowed_hosts: list[str]) -> Middleware:
    """An address never is a rebound name, so behind a wildcard bind (`0.0.0.0`, `::`) every address is allowed.

    A request without a Host header does not come from a browser.
    """
    allowed = LOOPBACK | {host_name(bound)} | {host_name(host) for host in allowed_hosts}
    wildcard = is_address(bound) and ipaddress.ip_address(bound).is_unspecified

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        for authority in request.headers.getall("Host", []):
            name = host_name(authority)
            if name not in allowed and not (wildcard and is_address(name)):
                raise ForbiddenError(f"Host {name!r} is not allowed. To allow it, add it to allowed_hosts.")
        return await handler(request)

    return check_host
