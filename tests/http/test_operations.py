"""Health, readiness, metrics, and llama-server's text tools."""

from __future__ import annotations

from typing import Any

import aiohttp

from minerva.server.state import RESIDENCY


async def test_a_loaded_server_is_healthy_and_ready(http: aiohttp.ClientSession) -> None:
    async with http.get("/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with http.get("/ready") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})


async def test_a_server_without_its_model_is_not_ready(serve: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as session, session.get("/ready") as response:
        assert response.status == 503


async def test_health_tells_that_the_model_is_loading(serve: Any) -> None:
    async with serve(parallel=1) as app, aiohttp.ClientSession(app.url) as session:
        worker = await app.app[RESIDENCY].preload()
        async with session.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "loading"
        await worker.ready(60)
        for path in ("/health", "/ready"):
            async with session.get(path) as response:
                assert response.status == 200


async def test_text_survives_its_tokens(http: aiohttp.ClientSession) -> None:
    for text in ("Hello, Minerva!", "größer als 10 €, 🙂 и да", "line\nline\ttab", ""):
        async with http.post("/tokenize", json={"content": text, "parse_special": False}) as response:
            tokens = (await response.json())["tokens"]
        async with http.post("/detokenize", json={"tokens": tokens}) as response:
            assert (await response.json())["content"] == text


async def test_pieces_are_text_or_bytes(http: aiohttp.ClientSession) -> None:
    async with http.post("/tokenize", json={"content": "héllo 🙂", "with_pieces": True}) as response:
        tokens = (await response.json())["tokens"]
    pieces = b"".join(
        token["piece"].encode() if isinstance(token["piece"], str) else bytes(token["piece"]) for token in tokens
    )
    assert pieces.decode().strip() == "héllo 🙂"


async def test_the_template_is_shown(http: aiohttp.ClientSession) -> None:
    async def prompt(role: str) -> str:
        messages = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        async with http.post("/apply-template", json={"messages": messages}) as response:
            assert response.status == 200
            return str((await response.json())["prompt"])

    system = await prompt("system")
    assert "Be brief." in system
    assert "Hello" in system
    assert await prompt("developer") == system


async def test_metrics_count_requests_by_route(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models/some/made/up/name"):
        pass
    async with http.get("/metrics") as response:
        page = await response.text()
    assert 'minerva_http_requests_total{method="GET",route="/v1/models/{id}",status="404"}' in page
    assert "made/up" not in page
    assert "minerva_requests_running{" in page
