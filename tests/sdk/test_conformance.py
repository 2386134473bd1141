"""Every case of the table, directly and through the gateway: nothing an application sees differs."""

from __future__ import annotations

import pytest

import recorded
from cases import BROKEN_CASES, CASES, ERROR_CASES, Case
from clients import SDKS, anthropic_client, openai_client
from outcome import Outcome, outcome_of
from stack import Fake

# Request headers for the gateway itself, one of each kind.
FOR_THE_GATEWAY = {
    "cf-aig-event-id": "0198c2f0-0000-7000-8000-000000000001",
    "cf-aig-metadata": '{"team":"harbour"}',
    "cf-aig-authorization": "Bearer token-of-the-gateway",
    "cf-aig-skip-cache": "true",
}


def table(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def both_ways(case: Case, fake: Fake, gateway: str) -> tuple[Outcome, Outcome]:
    """Makes the call both ways, checks what the provider was asked, and returns what came of it."""
    sdk = SDKS[case.sdk]
    fake.take_records()
    direct = outcome_of(case, sdk.direct(fake))
    asked_directly = recorded.only(fake.take_records())
    through = outcome_of(case, sdk.through(gateway))
    asked_through = recorded.only(fake.take_records())
    recorded.assert_same_request(asked_directly, asked_through, sdk.credential_headers)
    recorded.assert_nothing_for_the_gateway(asked_through)
    recorded.assert_answered_by(through.headers, sdk.slug)
    assert recorded.provider_headers(through.headers) == recorded.provider_headers(direct.headers)
    return direct, through


@table(CASES)
def test_the_same_objects_as_directly(case: Case, fake: Fake, gateway: str) -> None:
    direct, through = both_ways(case, fake, gateway)
    assert direct.error is None
    assert through.error is None
    assert through.events == direct.events


@table(ERROR_CASES)
def test_the_same_error_as_directly(case: Case, fake: Fake, gateway: str) -> None:
    direct, through = both_ways(case, fake, gateway)
    assert direct.error is not None
    assert through.error == direct.error
    assert through.headers["tollgate-error-source"] == "provider"


@table(BROKEN_CASES)
def test_a_broken_stream_raises(case: Case, fake: Fake, gateway: str) -> None:
    direct, through = both_ways(case, fake, gateway)
    assert direct.error is not None
    assert through.error is not None, "the broken stream looked complete"
    assert through.events == direct.events


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_headers_for_the_gateway_stay_there(sdk: str, fake: Fake, gateway: str) -> None:
    client = {"openai": openai_client, "anthropic": anthropic_client}[sdk]
    case = next(case for case in CASES if case.sdk == sdk)
    fake.take_records()
    plain = outcome_of(case, client(f"{gateway}/{sdk}"))
    asked_plainly = recorded.only(fake.take_records())
    directed = outcome_of(case, client(f"{gateway}/{sdk}", default_headers=FOR_THE_GATEWAY))
    asked_with_them = recorded.only(fake.take_records())
    recorded.assert_nothing_for_the_gateway(asked_with_them)
    recorded.assert_same_request(asked_plainly, asked_with_them, frozenset())
    assert directed.events == plain.events
    assert directed.headers["cf-aig-event-id"] == FOR_THE_GATEWAY["cf-aig-event-id"]
