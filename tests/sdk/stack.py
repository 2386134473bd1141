"""Starts and stops what a test needs: the fake providers, and gateways in front of them.

Run as a script it starts both, the gateway with a configuration of `gateway_config`, and then a
command with their addresses in `FAKE_URL` and `GATEWAY_URL`:
`python stack.py plain node --test node/conformance.test.mjs`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

import certificates
import gateway_config
from fake.app import CONTROL_RECORDS

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_SECONDS = 30
STOP_SECONDS = 10
POLL_SECONDS = 0.02
# What the SDKs read from a developer's own environment: keys, addresses, profiles.
SDK_VARIABLES = (
    "ANTHROPIC_", "AWS_", "CO_", "GEMINI_", "GOOGLE_", "GROQ_", "MISTRAL_", "OPENAI_",
)  # fmt: skip


@dataclass(frozen=True)
class Fake:
    """The running fake providers."""

    folder: Path
    http_port: int
    https_port: int
    token_uri: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def take_records(self) -> list[dict]:
        """What arrived since the last call, oldest first."""
        with urllib.request.urlopen(self.url + CONTROL_RECORDS, timeout=START_SECONDS) as answer:
            return json.load(answer)


def foreign_variables() -> list[str]:
    """Names of environment variables that would turn an SDK away from what a test sets."""
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return [
        name for name in os.environ if name.startswith(SDK_VARIABLES) or name.upper() in proxies
    ]


def target_folder() -> Path:
    return Path(os.environ.get("TOLLGATE_TARGET", ROOT / "target"))


def gateway_binary() -> Path:
    return Path(os.environ.get("TOLLGATE_BIN", target_folder() / "debug" / "tollgate"))


@contextlib.contextmanager
def fake_providers() -> Iterator[Fake]:
    """Runs the fake providers in a folder that goes away with them."""
    target_folder().mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sdk-", dir=target_folder()) as name:
        folder = Path(name)
        certificates.write_all(folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "fake", str(folder)], cwd=HERE, stdout=subprocess.PIPE, text=True
        )
        with _stopped_afterwards(process):
            started = json.loads(process.stdout.readline())
            yield Fake(folder, started["http"], started["https"], started["token_uri"])


@contextlib.contextmanager
def gateway(fake: Fake, name: str, config: dict) -> Iterator[str]:
    """Runs the binary on `config`, completed with free ports, and yields its URL when ready."""
    folder = fake.folder / name
    folder.mkdir()
    port, admin_port = _free_port(), _free_port()
    config["server"]["listen"] = [f"127.0.0.1:{port}"]
    config["server"]["upgrade_socket"] = str(folder / "upgrade.sock")
    config["admin"] = {"listen": f"127.0.0.1:{admin_port}"}
    config["data_dir"] = str(folder / "data")
    file = folder / "tollgate.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(gateway_binary()), "--conf", str(file)], stdout=output, stderr=output
        )
    with _stopped_afterwards(process):
        _wait_until_ready(process, f"http://127.0.0.1:{admin_port}/readyz", log)
        scheme = "https" if "tls" in config["server"] else "http"
        yield f"{scheme}://127.0.0.1:{port}/v1/default/default"


def admin_address(fake: Fake, name: str) -> str:
    """Where the gateway `name` listens for operators."""
    config = yaml.safe_load((fake.folder / name / "tollgate.yaml").read_text(encoding="utf-8"))
    return config["admin"]["listen"]


@contextlib.contextmanager
def _stopped_afterwards(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(url, timeout=START_SECONDS):
                return
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"the gateway did not become ready at {url}; its log:\n{log.read_text()}")


def end_orderly_on_sigterm() -> None:
    """Lets a time limit of whoever runs this end the servers too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def main(config: str, *command: str) -> int:
    end_orderly_on_sigterm()
    for name in foreign_variables():
        del os.environ[name]
    build = getattr(gateway_config, config)
    with fake_providers() as fake, gateway(fake, config, build(fake)) as url:
        addresses = {"FAKE_URL": fake.url, "GATEWAY_URL": url}
        return subprocess.call(command, env={**os.environ, **addresses})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
