"""Makes a call directly and through the gateway; nobody may be able to tell the two apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import recorded
from cases import Case, Ends
from outcome import Outcome, outcome_of

if TYPE_CHECKING:
    from stack import Fake


@dataclass(frozen=True)
class Way:
    """One of the two ways of a call: what came of it, and what the provider was asked."""

    outcome: Outcome
    asked: dict


def go(case: Case, client: Any, fake: Fake) -> Way:
    fake.take_records()
    outcome = outcome_of(case, client)
    requests = recorded.provider_requests(fake.take_records())
    assert len(requests) == 1, f"{len(requests)} requests reached the provider: {outcome}"
    return Way(outcome, requests[0])


def assert_indistinguishable(
    case: Case, direct: Way, through: Way, slug: str, credential_headers: frozenset[str]
) -> None:
    recorded.assert_same_request(direct.asked, through.asked, credential_headers)
    recorded.assert_nothing_for_the_gateway(through.asked)
    recorded.assert_answered_by(through.outcome.headers, slug)
    recorded.assert_same_response_headers(direct.outcome.headers, through.outcome.headers)
    assert through.outcome.events == direct.outcome.events
    _assert_same_end(case.ends, direct.outcome, through.outcome)


def _assert_same_end(ends: Ends, direct: Outcome, through: Outcome) -> None:
    assert (direct.error is None) == (ends is Ends.WHOLE)
    if ends is Ends.BROKEN:
        # Direct, the connection broke; through the gateway the dialect's own error event may tell.
        assert through.error is not None, "the broken stream looked complete"
        return
    assert through.error == direct.error
    if ends is Ends.REFUSED:
        assert through.headers["tollgate-error-source"] == "provider"
