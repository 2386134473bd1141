"""Gives golden answers of `tests/golden`, in any content coding and cut into pieces in any way.

A request names what it wants in a header: `x-fake-answer: <folder>/<name> <coding> <chop>`.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import brotli
import zstandard

from .http import Reply

ASK = "x-fake-answer"
GOLDEN = Path(__file__).parent.parent.parent / "golden"
FOLDERS = ("usage", "documented")
EVENT_STREAM = "application/vnd.amazon.eventstream"
STREAMS = ("text/event-stream", EVENT_STREAM, "application/stream+json", "application/x-ndjson")
GZIP_WINDOW_BITS = 31
LONGEST_BYTE_BY_BYTE = 1500
MOST_CUTS = 12


@dataclass(frozen=True)
class Golden:
    """A golden answer: what is known of it, and its body."""

    name: str
    fields: dict[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        return self.fields["content-type"].startswith(STREAMS)

    def frames(self) -> list[bytes]:
        """The pieces in which the provider makes it: the events of a stream, or the whole."""
        content_type = self.fields["content-type"]
        if content_type == EVENT_STREAM:
            return _messages(self.body)
        if content_type.startswith("text/event-stream"):
            return re.findall(rb".*?(?:\r?\n){2}|.+$", self.body, flags=re.DOTALL)
        return self.body.splitlines(keepends=True) if self.is_stream else [self.body]

    def sent(self, coding: str) -> bytes:
        """The body as it is sent."""
        return CODINGS[coding](self.frames())

    def tokens(self) -> dict[str, int]:
        """What it took, by kind: those kinds that are not zero."""
        counts = (part.split(" ") for part in self.fields["usage"].split(", "))
        return {kind: int(count) for kind, count in counts if int(count)}


def load(name: str) -> Golden:
    head, _, body = (GOLDEN / f"{name}.answer").read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
    return Golden(name, fields, body)


def all_that_report() -> list[Golden]:
    """All golden answers that say what they took."""
    files = (file for folder in FOLDERS for file in sorted((GOLDEN / folder).glob("*.answer")))
    answers = [load(f"{file.parent.name}/{file.stem}") for file in files]
    return [golden for golden in answers if golden.fields["usage"] != "none"]


def reply(asked: str) -> Reply:
    name, coding, how = asked.split(" ")
    golden = load(name)
    body = golden.sent(coding)
    headers = {"content-type": golden.fields["content-type"]}
    if coding != "identity":
        headers["content-encoding"] = coding
    if not golden.is_stream:
        headers["content-length"] = str(len(body))
    return Reply(200, headers, CHOPS[how](body))


def _messages(body: bytes) -> list[bytes]:
    """The messages of an AWS event stream, each of which begins with its length."""
    messages = []
    while body:
        (length,) = struct.unpack_from("!I", body)
        messages.append(body[:length])
        body = body[length:]
    return messages


def _deflated(window_bits: int) -> Callable[[list[bytes]], bytes]:
    def encode(frames: list[bytes]) -> bytes:
        packer = zlib.compressobj(wbits=window_bits)
        packed = [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in frames]
        return b"".join(packed) + packer.flush()

    return encode


def _brotli(frames: list[bytes]) -> bytes:
    packer = brotli.Compressor()
    packed = [packer.process(frame) + packer.flush() for frame in frames]
    return b"".join(packed) + packer.finish()


def _zstd(frames: list[bytes]) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    packed = [packer.compress(frame) + packer.flush(block) for frame in frames]
    return b"".join(packed) + packer.flush()


# Each frame can be unpacked when it arrives, as streams are packed by those who mean them as such.
CODINGS: dict[str, Callable[[list[bytes]], bytes]] = {
    "identity": b"".join,
    "gzip": _deflated(GZIP_WINDOW_BITS),
    "deflate": _deflated(zlib.MAX_WBITS),
    "br": _brotli,
    "zstd": _zstd,
}


def _at_random(body: bytes) -> list[bytes]:
    """Pieces that differ from body to body but not from run to run."""
    chance = random.Random(body)
    cuts = sorted(chance.randrange(len(body)) for _ in range(chance.randint(1, MOST_CUTS)))
    ends = [*cuts, len(body)]
    return [body[start:end] for start, end in zip([0, *cuts], ends, strict=True) if start < end]


CHOPS: dict[str, Callable[[bytes], list[bytes]]] = {
    "whole": lambda body: [body],
    "random": _at_random,
    "bytes": lambda body: [body[at : at + 1] for at in range(len(body))],
}
