"""Compares what the fake recorded, and the response headers, of the two ways of one call."""

from __future__ import annotations

import re

from fake.app import TOKEN_PATH

HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
# Differ from call to call of the same client.
PER_CALL = {"host", "amz-sdk-invocation-id", "idempotency-key", "traceparent"}
# Pingora stamps every response with its own date.
STAMPED_BY_GATEWAY = {"date"}
LOG_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def provider_requests(records: list[dict]) -> list[dict]:
    """Without what was asked of the token server."""
    return [record for record in records if record["path"] != TOKEN_PATH]


def header(record: dict, name: str) -> str | None:
    return dict(record["headers"]).get(name)


def assert_same_request(direct: dict, through: dict, credential_headers: frozenset[str]) -> None:
    for part in ("method", "path", "query", "body_base64"):
        assert through[part] == direct[part], part
    ignored = HOP_BY_HOP | PER_CALL | credential_headers
    assert _headers(through, ignored) == _headers(direct, ignored)


def assert_nothing_for_the_gateway(record: dict) -> None:
    names = [name for name, _ in record["headers"]]
    assert not [name for name in names if name.startswith(("cf-aig-", "tollgate-"))]


def assert_answered_by(headers: dict[str, str], slug: str) -> None:
    assert headers["cf-aig-provider"] == slug
    assert headers["cf-aig-step"] == "0"
    assert LOG_ID.fullmatch(headers["cf-aig-log-id"]), headers["cf-aig-log-id"]


def assert_same_response_headers(direct: dict[str, str], through: dict[str, str]) -> None:
    assert _provider_headers(through) == _provider_headers(direct)


def _provider_headers(headers: dict[str, str]) -> dict[str, str]:
    """The response headers that came from the provider."""
    return {
        name: value
        for name, value in headers.items()
        if name not in HOP_BY_HOP | STAMPED_BY_GATEWAY
        and not name.startswith(("cf-aig-", "tollgate-"))
    }


def _headers(record: dict, ignored: set[str]) -> dict[str, list[str]]:
    """Values by name, in the order in which they came."""
    values: dict[str, list[str]] = {}
    for name, value in record["headers"]:
        if name not in ignored:
            values.setdefault(name, []).append(value)
    return values
