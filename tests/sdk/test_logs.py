"""Cloudflare's own SDK finds, reads, rates and removes what the gateway has on record."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import cloudflare
import pytest

import gateway_config
import stack
from cases import case_named
from clients import SDKS
from comparison import go
from stack import Fake

ACCOUNT = GATEWAY = "default"
NAMES = {"account_id": ACCOUNT, "gateway_id": GATEWAY}
NOTHING = "019ac3e0-0000-7000-8000-000000000001"
# One call of each dialect, streamed and not.
CALLS = [
    case_named(name)
    for name in (
        "openai-chat",
        "openai-chat-stream-gzip",
        "anthropic-thinking-stream",
        "gemini-gzip",
        "mistral-chat",
        "cohere-stream",
        "bedrock-converse",
        "openai-error-500",
        "anthropic-error-429",
    )
]


@pytest.fixture(scope="module")
def logs(fake: Fake) -> Iterator[tuple[cloudflare.resources.ai_gateway.LogsResource, list[str]]]:
    """The SDK's logs of a gateway through which `CALLS` went, and their ids in that order."""
    with stack.gateway(fake, "logs", gateway_config.plain(fake)) as url:
        ids = []
        for case in CALLS:
            way = go(case, SDKS[case.sdk].through(url), fake)
            ids.append(way.outcome.headers["cf-aig-log-id"])
        base_url = f"http://{stack.admin_address(fake, 'logs')}/client/v4"
        client = cloudflare.Cloudflare(base_url=base_url, api_token="any", max_retries=0)
        yield client.ai_gateway.logs, ids


def test_lists_page_by_page_newest_first(logs) -> None:
    api, ids = logs
    assert [entry.id for entry in api.list(GATEWAY, account_id=ACCOUNT, per_page=2)] == ids[::-1]
    ascending = api.list(GATEWAY, account_id=ACCOUNT, per_page=50, order_by_direction="asc")
    assert [entry.id for entry in ascending] == ids
    page = api.list(GATEWAY, account_id=ACCOUNT, per_page=2, meta_info=True)
    assert page.result_info.per_page == 2


def test_entries_have_the_fields_of_the_sdk(logs) -> None:
    api, ids = logs
    for entry_id, case in zip(ids, CALLS, strict=True):
        entry = api.get(entry_id, **NAMES)
        assert entry.id == entry_id
        assert entry.created_at.tzinfo is not None
        assert entry.provider == SDKS[case.sdk].slug
        assert entry.success is (entry.status_code < 400)
        assert entry.duration >= 0
        if entry.success:
            assert entry.tokens_in > 0
            assert entry.tokens_out > 0
            assert entry.model


def test_filters_of_every_kind_find_what_they_say(logs) -> None:
    api, ids = logs
    everything = list(api.list(GATEWAY, account_id=ACCOUNT, per_page=50))

    def found(**arguments) -> list[str]:
        return [entry.id for entry in api.list(GATEWAY, account_id=ACCOUNT, **arguments)]

    def those(wanted) -> list[str]:
        return [entry.id for entry in everything if wanted(entry)]

    def by(*filters) -> list[str]:
        named = [
            {"key": key, "operator": operator, "value": values} for key, operator, values in filters
        ]
        return found(filters=named)

    assert found(success=False) == those(lambda entry: not entry.success)
    assert found(provider="anthropic") == those(lambda entry: entry.provider == "anthropic")
    assert by(("provider", "eq", ["openai", "anthropic"])) == those(
        lambda entry: entry.provider in ("openai", "anthropic")
    )
    assert by(("provider", "neq", ["openai"]), ("success", "eq", [True])) == those(
        lambda entry: entry.provider != "openai" and entry.success
    )
    limit = min(entry.tokens_in for entry in everything if entry.tokens_in)
    assert by(("tokens_in", "gt", [limit])) == those(
        lambda entry: entry.tokens_in is not None and entry.tokens_in > limit
    )
    assert by(("id", "eq", [ids[0]])) == [ids[0]]
    with pytest.raises(cloudflare.BadRequestError) as refused:
        by(("colour", "eq", ["red"]))
    assert refused.value.errors[0].code == 7001


def test_bodies_are_read(logs) -> None:
    api, ids = logs
    answer = api.with_raw_response.response(ids[0], **NAMES)
    assert answer.json()["choices"]
    assert api.request(ids[0], **NAMES)["messages"]


def test_costs_are_sums_of_money(logs) -> None:
    api, _ = logs
    costs = [entry.cost for entry in api.list(GATEWAY, account_id=ACCOUNT) if entry.success]
    assert all(cost is not None and Decimal(repr(cost)) > 0 for cost in costs)


def test_an_entry_is_rated(logs) -> None:
    api, ids = logs
    api.edit(ids[1], **NAMES, feedback=1, score=87.5, metadata={"reviewed": True, "by": "ann"})
    entry = api.get(ids[1], **NAMES)
    assert entry.feedback == 1
    assert entry.score == 87.5
    assert entry.metadata == {"reviewed": True, "by": "ann"}
    rated = api.list(GATEWAY, account_id=ACCOUNT, feedback=1)
    assert [entry.id for entry in rated] == [ids[1]]
    by_metadata = api.list(GATEWAY, account_id=ACCOUNT, search="reviewed")
    assert [entry.id for entry in by_metadata] == [ids[1]]
    with pytest.raises(cloudflare.NotFoundError):
        api.edit(NOTHING, **NAMES, feedback=1)


def test_what_is_removed_is_gone(logs) -> None:
    api, ids = logs
    one = [{"key": "id", "operator": "eq", "value": [ids[2]]}]
    assert api.delete(GATEWAY, account_id=ACCOUNT, filters=one).success
    with pytest.raises(cloudflare.NotFoundError):
        api.get(ids[2], **NAMES)
    left = {entry.id for entry in api.list(GATEWAY, account_id=ACCOUNT)}
    assert left == set(ids) - {ids[2]}
