"""A client that reads slowly gets everything, and holds nobody else up."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

import aiohttp
from raw_http import post
from served import Server

HELLO = [{"role": "user", "content": "Hello"}]


async def test_a_slow_reader_gets_everything_and_holds_nobody_up(server: Server, http: aiohttp.ClientSession) -> None:
    address = urlsplit(server.url)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((address.hostname, address.port))
    slow.setblocking(False)
    body = json.dumps({"messages": HELLO, "stream": True, "max_tokens": 1900, "ignore_eos": True}).encode()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(slow, post("/v1/chat/completions", body, "Connection: close"))
    for _ in range(3):
        async with http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 8}) as response:
            assert response.status == 200
        await asyncio.sleep(0.3)
    received = bytearray()
    while piece := await asyncio.wait_for(loop.sock_recv(slow, 65536), 30):
        received += piece
    slow.close()
    assert b'"finish_reason":"length"' in received
    assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
