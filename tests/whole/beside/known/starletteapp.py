"""A web application that takes its time: in an answer, in an answer's parts, on a websocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def slow(request: Request) -> Response:
    """An answer after two seconds."""
    await asyncio.sleep(2)
    return PlainTextResponse("slow")


async def events(request: Request) -> Response:
    """Server-sent events, the first one at once, the next ones three seconds apart."""

    async def parts() -> AsyncIterator[str]:
        for number in range(4):
            if number:
                await asyncio.sleep(3)
            yield f"data: {number}\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


async def talk(socket: WebSocket) -> None:
    """What comes, is answered two seconds later; beside that a message each four seconds."""
    await socket.accept()

    async def push() -> None:
        number = 0
        while True:
            await asyncio.sleep(4)
            number += 1
            await socket.send_text(f"push {number}")

    pushing = asyncio.create_task(push())
    try:
        while True:
            text = await socket.receive_text()
            await asyncio.sleep(2)
            await socket.send_text(f"echo {text}")
    except WebSocketDisconnect:
        pass
    finally:
        pushing.cancel()


app = Starlette(
    routes=[Route("/slow", slow), Route("/events", events), WebSocketRoute("/talk", talk)]
)
