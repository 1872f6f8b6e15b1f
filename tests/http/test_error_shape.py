"""Every error has OpenAI's shape, whatever it comes from, and tells nothing it should not."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from raw_http import exchange


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/json"
    error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


async def test_an_unknown_route(serve: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        async with http.get("/v1/nothing") as response:
            assert response.status == 404
            error = await error_of(response)
        assert error["code"] == "not_found"
        assert "/v1/nothing" in error["message"]


async def test_a_wrong_method_names_the_right_one(serve: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        async with http.get("/v1/chat/completions") as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
            error = await error_of(response)
        assert error["code"] == "method_not_allowed"
        assert "POST" in error["message"]


async def test_an_unforeseen_exception_is_500_and_keeps_its_secrets(serve: Any, monkeypatch: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        from minerva.server.state import RESIDENCY

        def broken(model: object) -> None:
            raise ZeroDivisionError("/home/me/secret.gguf")

        monkeypatch.setattr(app.app[RESIDENCY], "lease", broken)
        async with http.post("/v1/completions", json={"prompt": "x"}, headers={"x-request-id": "mine"}) as response:
            assert response.status == 500
            text = await response.text()
            assert (await error_of(response))["type"] == "server_error"
        assert "secret" not in text
        assert "ZeroDivision" not in text
        assert "mine" in text
        async with http.get("/v1/models") as response:
            assert response.status == 200


async def test_bytes_that_are_no_http_get_an_error_too(serve: Any) -> None:
    async with serve() as app:
        for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"):
            answer = await exchange(app.url, sent + b"\r\n\r\n")
            assert answer.status == 400
            assert answer.error()["type"] == "invalid_request_error"


async def test_a_request_id_is_kept_or_made(serve: Any) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        async with http.get("/health", headers={"x-request-id": "abc-123"}) as response:
            assert response.headers["x-request-id"] == "abc-123"
        async with http.get("/nothing", headers={"x-request-id": "no good" * 50}) as response:
            assert response.headers["x-request-id"].startswith("req_")
            assert "aiohttp" not in response.headers["Server"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_the_root_answers(serve: Any, method: str) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http, http.request(method, "/") as response:
        assert response.status == 200
        assert method == "HEAD" or "Minerva" in await response.text()
