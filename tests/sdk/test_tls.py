"""TLS with a private authority on both sides, in every pair of HTTP versions."""

from __future__ import annotations

import ssl

import anthropic
import openai
import pytest

import gateway_config
import recorded
from cases import BROKEN_CASES, CASES, ERROR_CASES, Case
from clients import anthropic_client, openai_client
from outcome import Outcome, outcome_of
from stack import Fake

TLS_CASES = [
    case for case in CASES + ERROR_CASES + BROKEN_CASES if case.sdk in ("openai", "anthropic")
]


def call(case: Case, url: str, fake: Fake, *, http2: bool) -> Outcome:
    context = ssl.create_default_context(cafile=str(fake.ca))
    if case.sdk == "openai":
        http_client = openai.DefaultHttpxClient(verify=context, http2=http2)
        return outcome_of(case, openai_client(url, http_client=http_client))
    http_client = anthropic.DefaultHttpxClient(verify=context, http2=http2)
    return outcome_of(case, anthropic_client(url, http_client=http_client))


@pytest.mark.parametrize("client_http2", [False, True], ids=["client-h1", "client-h2"])
@pytest.mark.parametrize("case", TLS_CASES, ids=lambda case: case.name)
def test_the_same_over_tls(
    case: Case, client_http2: bool, fake: Fake, tls_gateway: tuple[str, str]
) -> None:
    url, upstream_http = tls_gateway
    fake.take_records()
    direct = call(case, fake.tls_url + gateway_config.BASE_PATHS[case.sdk], fake, http2=client_http2)
    asked_directly = recorded.only(fake.take_records())
    through = call(case, f"{url}/{case.sdk}", fake, http2=client_http2)
    asked_through = recorded.only(fake.take_records())
    assert asked_through["http_version"] == {"h1": "1.1", "h2": "2"}[upstream_http]
    recorded.assert_same_request(asked_directly, asked_through, frozenset())
    recorded.assert_answered_by(through.headers, case.sdk)
    assert through.events == direct.events
    assert (through.error is None) == (direct.error is None)
    if case not in BROKEN_CASES:
        assert through.error == direct.error
