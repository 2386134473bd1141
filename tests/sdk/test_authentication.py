"""Real clients that know one key bring the gateway's token as that key."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

import gateway_config
import recorded
import stack
from cases import CASES, Case, Ends
from clients import API_KEY, SDKS
from comparison import go
from stack import Fake

WITH_A_KEY = [
    case
    for case in CASES
    if case.ends is Ends.WHOLE and SDKS[case.sdk].slug in gateway_config.BASE_PATHS
]


@pytest.fixture(scope="module")
def authenticated_gateway(fake: Fake) -> Iterator[str]:
    """A gateway whose only token is what the clients take for their key."""
    config = gateway_config.authenticated(fake, API_KEY)
    with stack.gateway(fake, "authenticated", config) as url:
        yield url


@pytest.mark.parametrize("case", WITH_A_KEY, ids=lambda case: case.name)
def test_the_stored_key_pays_and_the_token_stays(
    case: Case, fake: Fake, authenticated_gateway: str
) -> None:
    way = go(case, SDKS[case.sdk].through(authenticated_gateway), fake)
    assert way.outcome.error is None
    sent = f"{way.asked['headers']} {way.asked['query']}"
    assert gateway_config.STORED_KEY in sent
    assert API_KEY not in sent
    recorded.assert_nothing_for_the_gateway(way.asked)


def test_whoever_has_no_token_is_told_so(authenticated_gateway: str) -> None:
    answer = httpx.post(f"{authenticated_gateway}/openai/chat/completions", json={})
    assert (answer.status_code, answer.json()["internalCode"]) == (401, 2009)
