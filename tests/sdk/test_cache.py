"""Real clients parse an answer out of the cache as they parsed the original."""

from __future__ import annotations

import time

import pytest

from cases import CASES, Case, Ends
from clients import SDKS
from comparison import go
from outcome import outcome_of
from recorded import provider_requests
from stack import Fake

STORED_SECONDS = 10
POLL_SECONDS = 0.02
WHOLE = [case for case in CASES if case.ends is Ends.WHOLE]
OTHERS = [case for case in CASES if case.ends is not Ends.WHOLE]


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_a_hit_is_parsed_as_the_original(case: Case, fake: Fake, caching_gateway: str) -> None:
    client = SDKS[case.sdk].through(caching_gateway)
    first = go(case, client, fake)
    assert first.outcome.headers["cf-aig-cache-status"] == "MISS"
    # An answer is stored a moment after its last byte; until then others follow it live.
    deadline = time.monotonic() + STORED_SECONDS
    hits = 0
    while hits < 2 and time.monotonic() < deadline:
        again = outcome_of(case, client)
        assert again.headers["cf-aig-cache-status"] == "HIT"
        assert again.error is None
        assert again.events == first.outcome.events
        hits += "age" in again.headers
        time.sleep(POLL_SECONDS)
    assert hits == 2, "never stored"
    assert not provider_requests(fake.take_records())


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_what_is_no_whole_answer_is_never_given_again(
    case: Case, fake: Fake, caching_gateway: str
) -> None:
    client = SDKS[case.sdk].through(caching_gateway)
    for _ in range(2):
        way = go(case, client, fake)
        assert way.outcome.error is not None
        assert way.outcome.headers["cf-aig-cache-status"] == "MISS"
