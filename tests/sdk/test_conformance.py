"""Every case of the table over plain HTTP."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import recorded
from cases import CASES, Case, case_named
from clients import SDKS, anthropic_client, openai_client
from comparison import assert_indistinguishable, go
from stack import Fake

# Request headers for the gateway itself, one of each kind.
FOR_THE_GATEWAY = {
    "cf-aig-event-id": "0198c2f0-0000-7000-8000-000000000001",
    "cf-aig-metadata": '{"team":"harbour"}',
    "cf-aig-authorization": "Bearer token-of-the-gateway",
    "cf-aig-skip-cache": "true",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_directly(case: Case, fake: Fake, gateway: str) -> None:
    sdk = SDKS[case.sdk]
    direct = go(case, sdk.direct(fake), fake)
    through = go(case, sdk.through(gateway), fake)
    assert_indistinguishable(case, direct, through, sdk.slug, sdk.credential_headers)


@pytest.mark.parametrize(
    ("case", "connect"),
    [
        (case_named("openai-chat"), openai_client),
        (case_named("anthropic-messages"), anthropic_client),
    ],
    ids=["openai", "anthropic"],
)
def test_headers_for_the_gateway_stay_there(
    case: Case, connect: Callable, fake: Fake, gateway: str
) -> None:
    url = f"{gateway}/{case.sdk}"
    plain = go(case, connect(url), fake)
    directed = go(case, connect(url, default_headers=FOR_THE_GATEWAY), fake)
    recorded.assert_nothing_for_the_gateway(directed.asked)
    recorded.assert_same_request(plain.asked, directed.asked, frozenset())
    assert directed.outcome.events == plain.outcome.events
    assert directed.outcome.headers["cf-aig-event-id"] == FOR_THE_GATEWAY["cf-aig-event-id"]
