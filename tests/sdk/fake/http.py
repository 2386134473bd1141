"""The two values everything here passes around: what was asked, and what is answered."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """A request as it arrived: path and query are the raw bytes of the request line."""

    method: str
    path: str
    query: str
    http_version: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    def json_field(self, name: str) -> object:
        """A top-level field of a JSON body; None when the body is no JSON object."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return None
        return parsed.get(name) if isinstance(parsed, dict) else None

    def as_record(self) -> dict:
        """What tests read through the control endpoint."""
        return {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "http_version": self.http_version,
            "headers": self.headers,
            "body_sha256": hashlib.sha256(self.body).hexdigest(),
            "body_base64": base64.b64encode(self.body).decode(),
        }


@dataclass(frozen=True)
class Reply:
    """An answer, after `delay` seconds: its body leaves chunk by chunk, cut when not `complete`."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = True
    delay: float = 0


def json_reply(status: int, value: object, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(
        status, {"content-type": "application/json", **named}, [json.dumps(value).encode()]
    )
