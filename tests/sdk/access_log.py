"""Reads the gateway's access log: one JSON object per request, in the order of their ends."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path

PATIENCE_SECONDS = 10
POLL_SECONDS = 0.002


class AccessLog:
    """The lines of a running gateway by the id of their request, money exact."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._rest = b""
        self._lines: dict[str, dict] = {}

    def take(self, request_id: str) -> dict:
        """The line of this request; lines come a few milliseconds after the answer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while request_id not in self._lines:
            assert time.monotonic() < deadline, f"no line for request {request_id}"
            if not self._read():
                time.sleep(POLL_SECONDS)
        return self._lines.pop(request_id)

    def _read(self) -> bool:
        """Reads what was added; whether there was anything."""
        added = self._file.read()
        *lines, self._rest = (self._rest + added).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                entry = json.loads(line, parse_float=Decimal)
                self._lines[entry.get("id", "")] = entry
        return bool(added)
