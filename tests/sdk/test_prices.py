"""Truthful answers of every provider, priced by the gateway to the pico-dollar.

Golden answers pass through the binary in every content coding and cut in several ways. Their bytes
must reach the application as they were sent, and the access log must say what they took and cost,
as `genai-prices` has it and as it is worked out by hand.
"""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

import second_opinion
from access_log import AccessLog
from fake.golden import ASK, CHOPS, CODINGS, LONGEST_BYTE_BY_BYTE, all_that_report
from price_cases import DIFFERENCES, WORKED, Case
from stack import ROOT

CASES = [Case(golden) for golden in all_that_report()]
PRICED = [case for case in CASES if case.is_priced]


def deliveries() -> Iterator[pytest.param]:
    """Every case in every coding, cut in every way; large ones not byte by byte."""
    for case in CASES:
        for coding in CODINGS:
            is_small = len(case.golden.sent(coding)) <= LONGEST_BYTE_BY_BYTE
            for chop in CHOPS:
                if chop != "bytes" or is_small:
                    yield pytest.param(case, coding, chop, id=f"{case.name}-{coding}-{chop}")


@pytest.mark.parametrize(("case", "coding", "chop"), deliveries())
def test_counted_and_priced(
    case: Case, coding: str, chop: str, priced_gateway: tuple[str, AccessLog], http: httpx.Client
) -> None:
    url, log = priced_gateway
    at = datetime.now(UTC)
    answer, body = ask(http, f"{url}/{case.path}", case, coding, chop)
    assert answer.status_code == 200
    assert body == case.golden.sent(coding)
    assert answer.headers.get("content-encoding", "identity") == coding
    line = log.take(answer.headers["cf-aig-log-id"])
    assert counted(line) == case.golden.tokens()
    assert "usage_estimated" not in line
    assert line.get("service_tier", "standard") == case.golden.fields["tier"]
    assert (line["cost_source"], line.get("cost_usd")) == expected_cost(case, at)


@pytest.mark.parametrize("case", PRICED, ids=lambda case: case.name)
def test_they_read_the_same(case: Case) -> None:
    theirs = second_opinion.tokens(their_usage(case))
    difference = DIFFERENCES.get(case.name)
    assert theirs == (difference.theirs if difference else case.golden.tokens())


@pytest.mark.parametrize("name", WORKED)
def test_they_compute_what_is_worked_out_by_hand(name: str) -> None:
    case = next(case for case in PRICED if case.name == name)
    difference = DIFFERENCES.get(name)
    otherwise = difference.their_cost if difference else None
    assert their_cost(case, datetime.now(UTC)) == (otherwise or WORKED[name])


def test_they_have_the_same_price_list() -> None:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    versions = {package["name"]: package["version"] for package in lock["package"]}
    assert importlib.metadata.version("genai-prices") == versions["genai-prices"]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def ask(
    http: httpx.Client, url: str, case: Case, coding: str, chop: str
) -> tuple[httpx.Response, bytes]:
    """The answer, and its body as it came."""
    headers = {
        "authorization": "Bearer sk-test",
        "accept-encoding": coding,
        ASK: f"{case.name} {coding} {chop}",
    }
    question = {"model": case.asked, "stream": case.golden.is_stream}
    with http.stream("POST", url, json=question, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


def counted(line: dict) -> dict[str, int]:
    """What the log says an answer took: those kinds that are not zero."""
    kinds = {name.removesuffix("_tokens"): count for name, count in line.items()}
    known = {*second_opinion.KINDS, "input_image", "output_image"}
    return {kind: count for kind, count in kinds.items() if kind in known and count}


def expected_cost(case: Case, at: datetime) -> tuple[str, Decimal | None]:
    """What the log must say of the cost: by hand where it is worked out, or else theirs."""
    if not case.is_priced:
        return "unpriced", None
    return "catalogue", WORKED.get(case.name) or their_cost(case, at)


def their_usage(case: Case) -> second_opinion.Usage:
    if not case.is_read_by_them:
        return second_opinion.usage_as_stated(case.golden)
    operation = case.operation
    return second_opinion.usage_by_them(case.golden, operation.read_as, operation.flavor)


def their_cost(case: Case, at: datetime) -> Decimal:
    tier = case.golden.fields["tier"]
    usage = their_usage(case)
    return second_opinion.cost(usage, case.operation.prices, case.priced_as, tier, at)
