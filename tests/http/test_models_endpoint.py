"""/v1/models, for OpenAI's package and for Anthropic's."""

from __future__ import annotations

import aiohttp
import openai
import pytest
from served import Server

FIELDS = {
    "id",
    "object",
    "created",
    "owned_by",
    "context_window",
    "max_output_tokens",
    "quantization",
    "file_size_mb",
    "tensor_count",
    "architecture",
    "parameters",
}


def test_a_model_describes_itself(client: openai.OpenAI) -> None:
    listed = client.models.list().data
    assert listed
    described = client.models.retrieve(listed[0].id).model_dump()
    assert set(described) >= FIELDS
    assert described["object"] == "model"
    assert described["context_window"] == 2048
    assert described["parameters"] > 0
    assert described["tensor_count"] > 0
    assert 0 < described["file_size_mb"] < 9


def test_an_unknown_model_is_404_with_the_known_ids(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.models.retrieve("org/nothing:7b")
    assert unknown.value.code == "model_not_found"
    assert model in unknown.value.message
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-nothing", messages=[{"role": "user", "content": "Hello"}])
    assert unknown.value.code == "model_not_found"
    assert model in unknown.value.message


def test_the_anthropic_package_lists_the_same(server: Server, model: str) -> None:
    anthropic = pytest.importorskip("anthropic")
    listed = list(anthropic.Anthropic(base_url=server.url, api_key="unused").models.list())
    assert listed[0].id == model
    assert listed[0].type == "model"
    assert listed[0].created_at.year >= 2024


async def test_the_list_has_what_both_kinds_of_client_page_by(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models") as response:
        listing = await response.json()
    assert listing["object"] == "list"
    assert listing["has_more"] is False
    assert listing["first_id"] == listing["data"][0]["id"]
    assert listing["last_id"] == listing["data"][-1]["id"]
