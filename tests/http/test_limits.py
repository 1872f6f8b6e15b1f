"""Bodies, headers and connections have limits, each with its own status."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from raw_http import answer, connect, exchange, post

from minerva.server import body

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"


async def test_a_body_that_says_it_is_too_large_is_not_read(serve: Any) -> None:
    async with serve(max_body_mb=1) as app:
        refused = await exchange(app.url, HEAD + b"Content-Length: 2000000\r\n\r\n")
        assert refused.status == 413
        assert refused.error()["code"] == "request_too_large"
        assert refused.headers["connection"] == "close"


async def test_a_body_without_end_is_cut_off_at_the_limit(serve: Any) -> None:
    async with serve(max_body_mb=1) as app:
        reader, writer = await connect(app.url)
        writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while True:
                writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
                await writer.drain()

        pouring = asyncio.ensure_future(pour())
        refused = await asyncio.wait_for(answer(reader), 10)
        pouring.cancel()
        writer.close()
        assert refused.status == 413
        assert sent < 16 * 1024 * 1024


async def test_a_compressed_bomb_counts_as_what_it_unpacks_to(serve: Any) -> None:
    import gzip

    bomb = gzip.compress(b" " * 50_000_000)
    async with serve(max_body_mb=1) as app:
        assert (await exchange(app.url, post("/v1/completions", bomb, "Content-Encoding: gzip"))).status == 413
        assert (await exchange(app.url, post("/v1/completions", b"junk", "Content-Encoding: gzip"))).status == 400


@pytest.mark.parametrize("sent", [b"Content-Length: 50\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
async def test_a_body_that_stops_coming_times_out(serve: Any, monkeypatch: Any, sent: bytes) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    async with serve() as app:
        refused = await exchange(app.url, HEAD + sent)
        assert refused.status == 408
        assert refused.error()["code"] == "request_timeout"


async def test_a_body_that_only_trickles_times_out(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(body, "TOTAL_S", 0.5)
    async with serve() as app:
        reader, writer = await connect(app.url)
        writer.write(HEAD + b"Content-Length: 5000\r\n\r\n")

        async def trickle() -> None:
            while True:
                writer.write(b" ")
                await asyncio.sleep(0.05)

        trickling = asyncio.ensure_future(trickle())
        refused = await asyncio.wait_for(answer(reader), 10)
        trickling.cancel()
        writer.close()
        assert refused.status == 408


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx-long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    ],
    ids=["request line", "one header", "many headers"],
)
async def test_headers_have_a_limit(serve: Any, head: bytes) -> None:
    async with serve() as app:
        refused = await exchange(app.url, head)
        assert refused.status == 431
        assert refused.error()["code"] == "headers_too_large"


async def test_connections_have_a_limit(serve: Any) -> None:
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serve(max_connections=2) as app:
        held = [await connect(app.url) for _ in range(2)]
        for reader, writer in held:
            writer.write(ask)
            assert (await answer(reader)).status == 200
        refused = await exchange(app.url, ask)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.error()["code"] == "rate_limit_exceeded"
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert (await exchange(app.url, ask)).status == 200
