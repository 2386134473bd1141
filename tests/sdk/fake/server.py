"""Runs the application on free loopback ports: plain and TLS, HTTP/1.1 and h2 on both."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import hypercorn.protocol
from h2.errors import ErrorCodes
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.h2 import H2Protocol

from .app import TOKEN_PATH, FakeProviders
from .fixtures import FixtureSet
from .google import TokenServer


class ResettingH2Protocol(H2Protocol):
    """Resets streams whose answer broke off; hypercorn alone would leave them open for ever.

    Over HTTP/1.1 hypercorn closes the connection by itself.
    """

    async def stream_send(self, event: object) -> None:
        if isinstance(event, StreamClosed):
            await self._reset_if_unfinished(event.stream_id)
        await super().stream_send(event)

    async def _reset_if_unfinished(self, stream_id: int) -> None:
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer.complete:
            return
        await buffer.drain()
        self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        await self._flush()


hypercorn.protocol.H2Protocol = ResettingH2Protocol


def serve(folder: Path) -> None:
    """Prints the two ports as one line of JSON, then serves until the process is ended.

    `folder` holds `server.pem`, `server.key` and `google-public.pem`.
    """
    plain, tls = _listen(), _listen()
    ports = {"http": plain.getsockname()[1], "https": tls.getsockname()[1]}
    token_uri = f"https://localhost:{ports['https']}{TOKEN_PATH}"
    tokens = TokenServer((folder / "google-public.pem").read_bytes(), token_uri)
    app = FakeProviders(FixtureSet(), tokens)
    print(json.dumps({**ports, "token_uri": token_uri}), flush=True)
    asyncio.run(_serve(app, _config(folder, plain, tls)))


def _listen() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    return listener


def _config(folder: Path, plain: socket.socket, tls: socket.socket) -> Config:
    config = Config()
    config.insecure_bind = [f"fd://{plain.detach()}"]
    config.bind = [f"fd://{tls.detach()}"]
    config.certfile = str(folder / "server.pem")
    config.keyfile = str(folder / "server.key")
    config.alpn_protocols = ["h2", "http/1.1"]
    config.include_date_header = False
    config.include_server_header = False
    config.loglevel = "WARNING"
    return config


async def _serve(app: FakeProviders, config: Config) -> None:
    never = asyncio.Event()
    await hypercorn_serve(app, config, shutdown_trigger=never.wait)
