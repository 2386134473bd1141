"""Reads `fixtures/*.yaml` and finds the one that answers a request.

A fixture names the request it answers: the raw path, and the `model` and
`stream` fields of a JSON body where it has them. `like: <name>` takes
everything that is not given from another fixture of the same file, and
`answers: [<name>, …]` gives the answers of earlier ones in turn.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import yaml

from .eventstream import encode_event
from .http import Reply, Request

FIXTURES = Path(__file__).parent.parent / "fixtures"
GZIP_WINDOW_BITS = 31
KNOWN_FIELDS = {
    "name", "like", "source", "request", "guard", "status", "headers",
    "body", "messages", "line_ending", "gzip", "cut_after", "answers", "delay",
}  # fmt: skip


@dataclass(frozen=True)
class Fixture:
    """Answers without end, and the name of the check that guards them, if any."""

    replies: Iterator[Reply]
    guard: str | None


class FixtureSet:
    """All fixtures by what they answer."""

    def __init__(self, folder: Path = FIXTURES) -> None:
        self._by_key: dict[tuple, Fixture] = {}
        for file in sorted(folder.glob("*.yaml")):
            self._load(file)

    def find(self, request: Request) -> Fixture | None:
        model = request.json_field("model")
        stream = bool(request.json_field("stream"))
        for key in ((request.path, model, stream), (request.path, None, False)):
            if key in self._by_key:
                return self._by_key[key]
        return None

    def _load(self, file: Path) -> None:
        by_name: dict[str, dict] = {}
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            spec = {**by_name.get(document.get("like"), {}), **document}
            unknown = spec.keys() - KNOWN_FIELDS
            if unknown or "source" not in spec:
                raise ValueError(f"{file.name}: {spec['name']}: no source, or unknown {unknown}")
            by_name[spec["name"]] = spec
            names = spec.get("answers", [spec["name"]])
            self._add(file, spec, cycle([_reply(by_name[name]) for name in names]))

    def _add(self, file: Path, spec: dict, replies: Iterator[Reply]) -> None:
        match = spec["request"]
        key = (match["path"], match.get("model"), match.get("stream", False))
        if key in self._by_key:
            raise ValueError(f"{file.name}: {spec['name']}: another fixture answers {key}")
        self._by_key[key] = Fixture(replies, spec.get("guard"))


def _reply(spec: dict) -> Reply:
    frames = _frames(spec)
    headers = dict(spec["headers"])
    if spec.get("gzip"):
        headers["content-encoding"] = "gzip"
        frames = _gzip_frames(frames)
    if "cut_after" in spec:
        frames = _cut(frames, spec["cut_after"])
        return Reply(spec.get("status", 200), headers, frames, complete=False)
    if len(frames) == 1:
        headers["content-length"] = str(len(frames[0]))
    return Reply(spec.get("status", 200), headers, frames, delay=spec.get("delay", 0))


def _frames(spec: dict) -> list[bytes]:
    """The body in the pieces in which it leaves: one per event of a stream."""
    if "messages" in spec:
        return [encode_event(kind, payload.encode()) for kind, payload in spec["messages"]]
    if "event-stream" not in spec["headers"]["content-type"]:
        return [spec["body"].encode()]
    frames = re.findall(r".*?\n\n", spec["body"], flags=re.DOTALL)
    line_ending = "\r\n" if spec.get("line_ending") == "crlf" else "\n"
    return [frame.replace("\n", line_ending).encode() for frame in frames]


def _cut(frames: list[bytes], count: float) -> list[bytes]:
    """The first `count` frames; 2.5 is two and half of the third."""
    whole = int(count)
    part = frames[whole][: int(len(frames[whole]) * (count - whole))]
    return frames[:whole] + ([part] if part else [])


def _gzip_frames(frames: list[bytes]) -> list[bytes]:
    """One gzip stream, flushed after each frame so that each can be unpacked when it arrives."""
    packer = zlib.compressobj(wbits=GZIP_WINDOW_BITS)
    packed = [packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH) for frame in frames]
    packed[-1] += packer.flush()
    return packed
