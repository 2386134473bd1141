"""Encodes AWS event stream messages (`application/vnd.amazon.eventstream`).

Layout: total length, headers length, CRC-32 of those eight bytes, headers,
payload, CRC-32 of everything before. All integers are big-endian.
"""

from __future__ import annotations

import struct
import zlib

STRING = 7
PRELUDE_AND_CHECKSUMS = 16


def encode_event(event_type: str, payload: bytes) -> bytes:
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (":event-type", event_type),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    total = PRELUDE_AND_CHECKSUMS + len(headers) + len(payload)
    prelude = struct.pack("!II", total, len(headers))
    message = prelude + _crc(prelude) + headers + payload
    return message + _crc(message)


def _header(name: str, value: str) -> bytes:
    name_bytes, value_bytes = name.encode(), value.encode()
    return (
        struct.pack("!B", len(name_bytes))
        + name_bytes
        + struct.pack("!BH", STRING, len(value_bytes))
        + value_bytes
    )


def _crc(data: bytes) -> bytes:
    return struct.pack("!I", zlib.crc32(data))
