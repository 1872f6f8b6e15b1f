"""Who may ask: Host names, web origins, API keys."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import aiohttp
import pytest


async def status(http: aiohttp.ClientSession, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.get("/v1/models", headers=named) as response:
        return response.status


@pytest.mark.parametrize("host", ["localhost", "localhost:11434", "127.0.0.1:80", "[::1]:11434", "LocalHost", "me.lan"])
async def test_this_machines_names_are_allowed(serve: Any, host: str) -> None:
    async with serve(allowed_hosts=["me.lan"]) as app, aiohttp.ClientSession(app.url) as http:
        assert await status(http, Host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:11434", "localhost.evil.example", "10.0.0.7", "", "[::2]"]
)
async def test_a_rebound_name_is_refused(serve: Any, host: str) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url) as http:
        assert await status(http, Host=host) == 403


async def test_behind_a_wildcard_bind_addresses_are_allowed_and_names_are_not(serve: Any) -> None:
    async with serve(host="0.0.0.0") as app, aiohttp.ClientSession(app.url) as http:
        assert await status(http, Host="192.168.1.5:11434") == 200
        assert await status(http, Host="evil.example") == 403


LOCAL = ["http://localhost:3000", "https://localhost", "http://127.0.0.1:8080", "http://[::1]:5173"]
FOREIGN = ["https://evil.example", "http://localhost.evil.example", "null", "https://127.0.0.1.evil.example", "file://"]


@pytest.mark.parametrize("origin", [*LOCAL, "https://app.example"])
async def test_local_and_listed_pages_may_read(serve: Any, origin: str) -> None:
    async with serve(cors_origins=["https://app.example"]) as app, aiohttp.ClientSession(app.url) as http:
        for path in ("/v1/models", "/nothing"):
            async with http.get(path, headers={"Origin": origin}) as response:
                assert response.headers["Access-Control-Allow-Origin"] == origin
                assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", FOREIGN)
async def test_foreign_pages_get_nothing_done(serve: Any, origin: str) -> None:
    async with serve() as app, aiohttp.ClientSession(app.url, headers={"Origin": origin}) as http:
        response = await http.post("/v1/completions", json={"prompt": "x"})
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_preflight_is_answered_without_a_key(serve: Any) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with serve(api_key=["k"]) as app, aiohttp.ClientSession(app.url) as http:
        async with http.options("/v1/chat/completions", headers=asked) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert "POST" in response.headers["Access-Control-Allow-Methods"]
            assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        async with http.options("/v1/models", headers={**asked, "Origin": "https://evil.example"}) as response:
            assert response.status == 403


async def test_a_key_is_asked_for_and_taken_in_both_headers(serve: Any) -> None:
    hashed = "sha256:" + hashlib.sha256(b"other").hexdigest()
    async with serve(api_key=["sesame", hashed]) as app, aiohttp.ClientSession(app.url) as http:
        assert await status(http) == 401
        assert await status(http, Authorization="Bearer wrong") == 401
        assert await status(http, Authorization="Basic sesame") == 401
        assert await status(http, Authorization="Bearer é") == 401
        assert await status(http, Authorization="Bearer sesame") == 200
        assert await status(http, x_api_key="sesame") == 200
        assert await status(http, x_api_key="other") == 200
        async with http.get("/metrics") as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == "invalid_api_key"


async def test_health_and_ready_need_no_key(serve: Any) -> None:
    async with serve(api_key=["sesame"]) as app, aiohttp.ClientSession(app.url) as http:
        for path in ("/health", "/ready"):
            async with http.get(path) as response:
                assert response.status in (200, 503)


async def test_prompts_are_logged_only_when_asked_for(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for log_prompts in (False, True):
        caplog.clear()
        async with serve(log_prompts=log_prompts) as app, aiohttp.ClientSession(app.url) as http:
            response = await http.post("/v1/completions", json={"prompt": "hush now", "max_tokens": 2})
            text = (await response.json())["choices"][0]["text"]
        assert ("hush now" in caplog.text) is log_prompts
        assert (json.dumps(text) in caplog.text) is log_prompts


async def test_the_log_has_neither_key_nor_prompt(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(api_key=["sesame"]) as app, aiohttp.ClientSession(app.url) as http:
        headers = {"Authorization": "Bearer sesame"}
        async with http.post("/v1/completions?key=sesame", json={"prompt": 5, "suffix": "hush"}, headers=headers):
            pass
    assert "POST /v1/completions 400" in caplog.text
    assert "sesame" not in caplog.text
    assert "hush" not in caplog.text
