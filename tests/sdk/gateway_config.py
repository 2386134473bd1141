"""The configurations under test. Only addresses and keys differ from what users write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fake.identities import (
    AWS_REGION,
    AWS_SECRETS,
    AWS_STORED_KEY_ID,
    GOOGLE_ACCOUNT,
    GOOGLE_KEY_ID,
    GOOGLE_PROJECT,
)

if TYPE_CHECKING:
    from stack import Fake

# Provider slug -> path of its fake, which stands for the provider's base URL.
BASE_PATHS = {
    "openai": "/openai/v1",
    "anthropic": "/anthropic",
    "google-ai-studio": "/gemini",
    "groq": "/groq/openai/v1",
    "mistral": "/mistral",
    "cohere": "/cohere",
}

STORED_KEY = "sk-stored-and-never-with-the-application"

# The other providers of golden answers.
OTHERS = (
    "deepseek", "grok", "ollama", "openrouter", "perplexity-ai", "together", "voyage", "writer",
)  # fmt: skip


def plain(fake: Fake) -> dict:
    """Plain HTTP to the application and to most providers; stored keys for the two clouds."""
    providers = {
        slug: {"base_url": fake.url + path, "allow_insecure": True}
        for slug, path in BASE_PATHS.items()
    }
    return _config({**providers, **_clouds(fake)})


def without_stored_keys(fake: Fake) -> dict:
    """As `plain`, but every application brings its own credentials."""
    config = plain(fake)
    for provider in config["providers"].values():
        provider.pop("keys", None)
    del config["accounts"]["default"]["gateways"]["default"]["authentication"]
    return config


def caching(fake: Fake) -> dict:
    """As `plain`, with the cache on."""
    config = plain(fake)
    config["accounts"]["default"]["gateways"]["default"]["cache"] = {"ttl": "5m"}
    return config


def authenticated(fake: Fake, token: str) -> dict:
    """Only who brings the token passes, and the gateway's own keys pay."""
    config = plain(fake)
    for slug in BASE_PATHS:
        config["providers"][slug]["keys"] = [{"value": STORED_KEY}]
    config["accounts"]["default"]["gateways"]["default"]["authentication"] = {
        "required": True,
        "tokens": [{"name": "application", "value": token}],
    }
    return config


def priced(fake: Fake) -> dict:
    """As `plain`, with a log that says what requests cost, and all whose answers are priced."""
    config = plain(fake)
    config["log"] = {"access": "json"}
    for slug in OTHERS:
        config["providers"][slug] = {"base_url": f"{fake.url}/{slug}", "allow_insecure": True}
    config["providers"]["azure-openai"] = _connection(fake)
    return config


def steps(fake: Fake) -> dict:
    """As `plain`, with stored keys for all of a fallback, and a route whose first target fails."""
    config = plain(fake)
    for slug in ("openai", "anthropic"):
        aliases = ("default", "other")
        keys = [{"alias": alias, "value": f"sk-stored-{slug}-{alias}"} for alias in aliases]
        config["providers"][slug]["keys"] = keys
    models = ("error-500", "gpt-4.1-nano")
    targets = [{"provider": "openai", "model": model} for model in models]
    config["accounts"]["default"]["gateways"]["default"]["routes"] = {"sea": {"targets": targets}}
    return config


def tls(fake: Fake, upstream_http: str) -> dict:
    """TLS to the application and to providers, which are spoken to in `upstream_http`."""
    providers = {
        slug: {"base_url": fake.tls_url + path, "http": upstream_http, "tls": {"ca": str(fake.ca)}}
        for slug, path in BASE_PATHS.items()
    }
    config = _config(providers)
    server = fake.folder / "server"
    config["server"]["tls"] = {"cert": f"{server}.pem", "key": f"{server}.key"}
    return config


def service_account(fake: Fake) -> dict:
    """A service account as Google hands it out, but for the address of the token server."""
    return {
        "type": "service_account",
        "project_id": GOOGLE_PROJECT,
        "private_key_id": GOOGLE_KEY_ID,
        "private_key": (fake.folder / "google.key").read_text(),
        "client_email": GOOGLE_ACCOUNT,
        "client_id": "100000000000000000001",
        "token_uri": fake.token_uri,
        "universe_domain": "googleapis.com",
    }


def _config(providers: dict) -> dict:
    authentication = {"anyone_may_spend_stored_keys": True}
    return {
        "server": {},
        "providers": providers,
        "accounts": {"default": {"gateways": {"default": {"authentication": authentication}}}},
    }


def _clouds(fake: Fake) -> dict:
    """Providers whose URLs keep the real hosts, which signatures and certificates name."""
    account_file = fake.folder / "service-account.json"
    account_file.write_text(json.dumps(service_account(fake)), encoding="utf-8")
    aws_key = {
        "accessKeyId": AWS_STORED_KEY_ID,
        "secretAccessKey": AWS_SECRETS[AWS_STORED_KEY_ID],
        "region": AWS_REGION,
    }
    connection = _connection(fake)
    return {
        "aws-bedrock": {**connection, "keys": [{"value": json.dumps(aws_key)}]},
        "google-vertex-ai": {
            **connection,
            "token_connect_to": connection["connect_to"],
            "keys": [{"file": str(account_file)}],
        },
    }


def _connection(fake: Fake) -> dict:
    """Reaches the fake under the real host's name."""
    return {"connect_to": f"127.0.0.1:{fake.https_port}", "tls": {"ca": str(fake.ca)}}
