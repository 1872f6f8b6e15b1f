"""POST /tokenize, /detokenize, /apply-template: what llama-server offers under these names."""

from __future__ import annotations

from aiohttp import web

from minerva.server.body import read_body
from minerva.server.json_response import json_response
from minerva.server.openai.prompts import chat_prompt
from minerva.server.openai.schemas import Body, ChatRequest, TokenId
from minerva.server.state import RESIDENCY


class TokenizeRequest(Body):
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class DetokenizeRequest(Body):
    tokens: list[TokenId]
    model: str | None = None


async def tokenize(request: web.Request) -> web.Response:
    body = await read_body(request, TokenizeRequest)
    async with request.app[RESIDENCY].lease(body.model or None) as lease:
        reply = await lease.worker.tokenize(
            body.content,
            add_special=body.add_special,
            parse_special=body.parse_special,
            with_pieces=body.with_pieces,
        )
    if not body.with_pieces:
        return json_response({"tokens": reply.tokens})
    pairs = zip(reply.tokens, reply.pieces, strict=True)
    return json_response({"tokens": [{"id": token, "piece": _piece(piece)} for token, piece in pairs]})


async def detokenize(request: web.Request) -> web.Response:
    body = await read_body(request, DetokenizeRequest)
    async with request.app[RESIDENCY].lease(body.model or None) as lease:
        return json_response({"content": await lease.worker.detokenize(body.tokens)})


async def apply_template(request: web.Request) -> web.Response:
    body = await read_body(request, ChatRequest)
    async with request.app[RESIDENCY].lease(body.model or None) as lease:
        return json_response({"prompt": await lease.worker.apply_template(chat_prompt(body))})


def _piece(piece: bytes) -> str | list[int]:
    """Text where the piece is text, its bytes where it is a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
