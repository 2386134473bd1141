"""The ASGI application: records every request and answers it from the fixtures, or the golden
answers.

`GET /_control/records` returns what was recorded since the last such call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from . import golden
from .aws import check_signature
from .fixtures import FixtureSet
from .google import TokenServer
from .http import Reply, Request, json_reply

CONTROL_RECORDS = "/_control/records"
TOKEN_PATH = "/token"
# Every origin states when it answered; always the same, so that answers can be compared whole.
DATE = ("date", "Thu, 01 Jan 2026 00:00:00 GMT")
# Connections break in a silence; what was sent before it has been delivered.
SILENCE_BEFORE_BREAK_SECONDS = 0.1


class FakeProviders:
    """All fake providers behind one ASGI callable."""

    def __init__(self, fixtures: FixtureSet, tokens: TokenServer) -> None:
        self._fixtures = fixtures
        self._tokens = tokens
        self._guards: dict[str, Callable[[Request], Reply | None]] = {
            "aws-signature": check_signature,
            "google-token": tokens.check_token,
        }
        self._records: list[Request] = []

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        await _write(self._reply(request), send)

    def _reply(self, request: Request) -> Reply:
        if request.path == CONTROL_RECORDS:
            return self._hand_out_records()
        self._records.append(request)
        if request.path == TOKEN_PATH:
            return self._tokens.exchange(request)
        return self._provider_reply(request)

    def _hand_out_records(self) -> Reply:
        records, self._records = self._records, []
        return json_reply(200, [request.as_record() for request in records])

    def _provider_reply(self, request: Request) -> Reply:
        if asked := request.header(golden.ASK):
            return golden.reply(asked)
        fixture = self._fixtures.find(request)
        if fixture is None:
            return json_reply(404, {"error": f"no fixture answers {request.path}"})
        refusal = self._guards[fixture.guard](request) if fixture.guard else None
        return refusal or next(fixture.replies)


async def _read(scope: dict, receive: Callable) -> Request:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return Request(
        method=scope["method"],
        path=scope["raw_path"].decode("ascii"),
        query=scope["query_string"].decode("ascii"),
        http_version=scope["http_version"],
        headers=[
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        ],
        body=body,
    )


async def _write(reply: Reply, send: Callable) -> None:
    """Sends the reply; returning without the last message makes the server break off."""
    await asyncio.sleep(reply.delay)
    named = [DATE, *reply.headers.items()]
    headers = [(name.encode(), value.encode("latin-1")) for name, value in named]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    for chunk in reply.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if reply.complete:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await asyncio.sleep(SILENCE_BEFORE_BREAK_SECONDS)
