"""The sockets that the server listens on, and what to do when it cannot."""

from __future__ import annotations

import errno
import resource
import socket

from minerva.errors import MinervaError

OLLAMA_PORT = 11434
SPARE_FILES = 256
"""Open files that are not connections: models, pipes to workers, logs."""


def listen(host: str, port: int, *, backlog: int = 1024) -> list[socket.socket]:
    """One socket for each address of `host`, all on one port. Raises MinervaError that says what to do."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise MinervaError(f"host {host!r} is unknown: pass an address of this machine with --host") from None
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            port = bound.getsockname()[1]
            bound.listen(backlog)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise MinervaError(_reason(error, host, port)) from None
    return sockets


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        who = "another program (Ollama?)" if port == OLLAMA_PORT else "another program"
        return f"port {port} is in use by {who}: stop it or pass --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be opened by this user: pass --port with a number above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: pass another --host"
    return f"cannot listen on {host}, port {port}: {error.strerror}"


def url_of(bound: socket.socket) -> str:
    """Where a client on this machine reaches it."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_connections(number: int) -> None:
    """Raise the limit of open files, which is 256 on macOS, as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
