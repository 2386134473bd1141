"""What a golden answer took and cost, as PyPI's `genai-prices` reads and computes it.

It knows documents only. What a stream comes to is put together here as each provider documents it,
with nothing of the gateway's own reading.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
from botocore.eventstream import EventStreamBuffer
from genai_prices import Usage

from fake.golden import EVENT_STREAM, Golden

PICO_DOLLAR = Decimal("1e-12")
# Our word for a kind of tokens -> theirs.
KINDS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached_input": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "output_reasoning_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
    "cached_audio": "cache_audio_read_tokens",
    "web_searches": "web_searches",
}
# Service tier -> how they are told of it.
CONTEXTS = {
    "standard": None,
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}


def usage_by_them(golden: Golden, provider: str, flavor: str) -> Usage:
    """Their usage, read by their own rules for this provider and API."""
    document = document_of(golden)
    document.pop("model", None)  # the reader's list need not have it
    extracted = genai_prices.extract_usage(document, provider_id=provider, api_flavor=flavor)
    return extracted.usage


def usage_as_stated(golden: Golden) -> Usage:
    """Their usage, for answers that they have no rules for."""
    return Usage(**{KINDS[kind]: count for kind, count in golden.tokens().items()})


def tokens(usage: Usage) -> dict[str, int]:
    """Their counts in our words: those that are not zero."""
    counts = {kind: usage.reported_value(name) for kind, name in KINDS.items()}
    return {kind: int(count) for kind, count in counts.items() if count}


def cost(usage: Usage, provider: str, model: str, tier: str, at: datetime) -> Decimal:
    """Their cost in dollars, rounded once, at its end, to a pico-dollar."""
    price = genai_prices.calc_price(
        usage,
        model,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context=CONTEXTS[tier],
    )
    return price.total_price.quantize(PICO_DOLLAR, ROUND_HALF_UP)


def document_of(golden: Golden) -> dict:
    """The answer as one document."""
    if not golden.is_stream and not golden.body.startswith(b"["):
        return json.loads(golden.body)
    events = _events(golden)
    if "message_start" in (event.get("type") for event in events):
        return _anthropic(events)
    return _FORMATS[golden.fields["format"]](events)


def _events(golden: Golden) -> list[dict]:
    content_type = golden.fields["content-type"]
    if content_type == EVENT_STREAM:
        buffer = EventStreamBuffer()
        buffer.add_data(golden.body)
        return [_unwrapped(json.loads(message.payload)) for message in buffer]
    if content_type.startswith("application/json"):
        return json.loads(golden.body)
    lines = golden.body.decode().splitlines()
    if content_type.startswith("text/event-stream"):
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def _unwrapped(payload: dict) -> dict:
    """The model's own event, out of one of Bedrock's invoke."""
    return json.loads(base64.b64decode(payload["bytes"])) if "bytes" in payload else payload


def _anthropic(events: list[dict]) -> dict:
    """The counts of `message_delta` are cumulative."""
    message = next(event["message"] for event in events if event["type"] == "message_start")
    for event in events:
        if event["type"] == "message_delta":
            message["usage"].update(event["usage"])
    return message


def _openai_chat(events: list[dict]) -> dict:
    """Groq may have the usage among what is its own."""
    said = [{**event, **event.get("x_groq", {})} for event in events]
    return [event for event in said if event.get("usage")][-1]


def _openai_responses(events: list[dict]) -> dict:
    return events[-1]["response"]


def _gemini(events: list[dict]) -> dict:
    return events[-1]


def _bedrock_converse(events: list[dict]) -> dict:
    return next(event for event in events if "usage" in event)


def _cohere(events: list[dict]) -> dict:
    return next(event["delta"] for event in events if event.get("type") == "message-end")


_FORMATS: dict[str, Callable[[list[dict]], dict]] = {
    "openai-chat": _openai_chat,
    "openai-responses": _openai_responses,
    "gemini-generate": _gemini,
    "bedrock": _bedrock_converse,
    "cohere-chat": _cohere,
}
