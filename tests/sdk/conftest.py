"""The servers of one run, shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import gateway_config
import stack
from access_log import AccessLog
from stack import Fake

pytest.register_assert_rewrite("comparison", "recorded")


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    """The environment without the developer's own keys and proxies."""
    stack.end_orderly_on_sigterm()
    with pytest.MonkeyPatch.context() as environment:
        for name in stack.foreign_variables():
            environment.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            environment.setenv(name, "/dev/null")
        yield environment


@pytest.fixture(scope="session")
def fake(environment: pytest.MonkeyPatch) -> Iterator[Fake]:
    """The fake providers, whose authority every SDK trusts as it would a company's own."""
    with stack.fake_providers() as fake:
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"):
            environment.setenv(name, str(fake.ca))
        yield fake


@pytest.fixture(scope="session")
def gateway(fake: Fake) -> Iterator[str]:
    """A gateway that speaks plain HTTP, as on the first day."""
    with stack.gateway(fake, "plain", gateway_config.plain(fake)) as url:
        yield url


@pytest.fixture(scope="session")
def caching_gateway(fake: Fake) -> Iterator[str]:
    """A gateway that gives answers again."""
    with stack.gateway(fake, "caching", gateway_config.caching(fake)) as url:
        yield url


@pytest.fixture(scope="session")
def priced_gateway(fake: Fake) -> Iterator[tuple[str, AccessLog]]:
    """A gateway in front of all providers of golden answers, and its access log."""
    with stack.gateway(fake, "priced", gateway_config.priced(fake)) as url:
        yield url, AccessLog(fake.folder / "priced" / "log")


@pytest.fixture(scope="session", params=["h1", "h2"])
def tls_gateway(fake: Fake, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A gateway with TLS on both sides, and the HTTP version it speaks to providers."""
    version = request.param
    with stack.gateway(fake, f"tls-{version}", gateway_config.tls(fake, version)) as url:
        yield url, version
