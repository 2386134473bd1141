"""What came of a call: the parsed objects or the error, and the response headers behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import botocore.httpsession
import httpx
import httpx2
from botocore.exceptions import ClientError
from pydantic import BaseModel

from cases import Case

# What SDK errors say about the provider's answer; each has some of these.
ERROR_FIELDS = ("status_code", "code", "type", "status", "param", "message", "body", "details")
# Parts of parsed objects that only repeat response headers, which are compared by themselves.
HEADER_FIELDS = {"sdk_http_response", "ResponseMetadata"}


@dataclass(frozen=True)
class Outcome:
    """`events` is the one parsed object, or every event of a stream up to `error`."""

    events: list[Any]
    error: dict | None
    headers: dict[str, str]


def outcome_of(case: Case, client: Any) -> Outcome:
    events: list[Any] = []
    error = None
    with _observed_responses() as responses:
        try:
            result = case.call(client)
            for event in result if case.stream else [result]:
                events.append(_plain(event))
        except Exception as raised:  # noqa: BLE001 what SDKs raise is what is compared
            error = _describe(raised)
    if not responses:
        raise AssertionError(f"{case.name}: no response came: {error}")
    return Outcome(events, error, responses[-1])


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {"class": type(value).__qualname__, **_plain(dict(value.model_dump(warnings=False)))}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key not in HEADER_FIELDS}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _describe(error: Exception) -> dict:
    described = {
        name: _plain(getattr(error, name)) for name in ERROR_FIELDS if hasattr(error, name)
    }
    if isinstance(error, ClientError):
        described["response"] = _plain(error.response)
    return {"class": type(error).__qualname__, **described}


@contextlib.contextmanager
def _observed_responses() -> Iterator[list[dict[str, str]]]:
    """Collects the headers of every response, under whichever HTTP library an SDK stands on."""
    seen: list[dict[str, str]] = []
    with contextlib.ExitStack() as patches:
        for transport in (httpx.Client, httpx2.Client, botocore.httpsession.URLLib3Session):
            patches.enter_context(mock.patch.object(transport, "send", _observing(transport, seen)))
        yield seen


def _observing(transport: type, seen: list[dict[str, str]]) -> Any:
    send = transport.send

    def observed(self: Any, *args: Any, **options: Any) -> Any:
        response = send(self, *args, **options)
        seen.append({name.lower(): value for name, value in response.headers.items()})
        return response

    return observed
