"""TLS with a private authority on both sides, in every pair of HTTP versions."""

from __future__ import annotations

import ssl

import anthropic
import openai
import pytest

import gateway_config
from cases import CASES, Case
from clients import anthropic_client, openai_client
from comparison import assert_indistinguishable, go
from stack import Fake

WIRE_VERSIONS = {"h1": "1.1", "h2": "2"}
CONNECT = {
    "openai": (openai_client, openai.DefaultHttpxClient),
    "anthropic": (anthropic_client, anthropic.DefaultHttpxClient),
}
TLS_CASES = [case for case in CASES if case.sdk in CONNECT]


def client_of(case: Case, url: str, fake: Fake, client_http: str) -> object:
    connect, transport = CONNECT[case.sdk]
    context = ssl.create_default_context(cafile=str(fake.ca))
    return connect(url, http_client=transport(verify=context, http2=client_http == "h2"))


@pytest.mark.parametrize("client_http", ["h1", "h2"])
@pytest.mark.parametrize("case", TLS_CASES, ids=lambda case: case.name)
def test_the_same_over_tls(
    case: Case, client_http: str, fake: Fake, tls_gateway: tuple[str, str]
) -> None:
    url, upstream_http = tls_gateway
    direct_url = fake.tls_url + gateway_config.BASE_PATHS[case.sdk]
    direct = go(case, client_of(case, direct_url, fake, client_http), fake)
    through = go(case, client_of(case, f"{url}/{case.sdk}", fake, client_http), fake)
    assert direct.asked["http_version"] == WIRE_VERSIONS[client_http]
    assert through.asked["http_version"] == WIRE_VERSIONS[upstream_http]
    assert_indistinguishable(case, direct, through, case.sdk, frozenset())
