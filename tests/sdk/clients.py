"""How each SDK is pointed at a provider: the base URL, and no retries, is all that is set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anthropic
import boto3
import cohere
import groq
import openai
from botocore import UNSIGNED
from botocore.config import Config
from google import genai
from google.genai.types import HttpOptions, ResourceScope
from google.oauth2 import service_account
from mistralai.client import Mistral

import gateway_config
from fake.identities import (
    AWS_CLIENT_KEY_ID,
    AWS_REGION,
    AWS_SECRETS,
    GOOGLE_LOCATION,
    GOOGLE_PROJECT,
    GOOGLE_SCOPE,
)

if TYPE_CHECKING:
    from stack import Fake

API_KEY = "sk-test-key-of-the-application"
BEDROCK_PATH = f"/aws-bedrock/bedrock-runtime/{AWS_REGION}"
VERTEX_PATH = "/google-vertex-ai"
VERTEX_LOCATION_PATH = f"/v1beta1/projects/{GOOGLE_PROJECT}/locations/{GOOGLE_LOCATION}"


@dataclass(frozen=True)
class Sdk:
    """One real client: how it reaches the fake by itself, and how through a gateway."""

    slug: str
    direct: Callable[[Fake], object]
    through: Callable[[str], object]
    # Headers that carry or describe the credential, which differs on the two ways.
    credential_headers: frozenset[str] = frozenset()


def openai_client(url: str, **options: object) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key=API_KEY, max_retries=0, **options)


def anthropic_client(url: str, **options: object) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=API_KEY, max_retries=0, **options)


def gemini_client(url: str) -> genai.Client:
    return genai.Client(api_key=API_KEY, http_options=HttpOptions(base_url=url))


def groq_client(url: str) -> groq.Groq:
    return groq.Groq(base_url=url, api_key=API_KEY, max_retries=0)


def mistral_client(url: str) -> Mistral:
    return Mistral(server_url=url, api_key=API_KEY)


def cohere_client(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(base_url=url, api_key=API_KEY, max_retries=0)


def bedrock_client(url: str, **options: object) -> object:
    config = Config(retries={"total_max_attempts": 1}, **options)
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=url,
        region_name=AWS_REGION,
        aws_access_key_id=AWS_CLIENT_KEY_ID,
        aws_secret_access_key=AWS_SECRETS[AWS_CLIENT_KEY_ID],
        config=config,
    )


def vertex_client_with_own_account(fake: Fake, url: str) -> genai.Client:
    """Google's own library exchanges the service account for a token."""
    credentials = service_account.Credentials.from_service_account_info(
        gateway_config.service_account(fake), scopes=[GOOGLE_SCOPE]
    )
    return genai.Client(
        vertexai=True,
        project=GOOGLE_PROJECT,
        location=GOOGLE_LOCATION,
        credentials=credentials,
        http_options=HttpOptions(base_url=url),
    )


def vertex_client_without_account(url: str) -> genai.Client:
    """The SDK's way to leave credentials to a gateway: the base URL names the collection."""
    options = HttpOptions(
        base_url=url + VERTEX_LOCATION_PATH, base_url_resource_scope=ResourceScope.COLLECTION
    )
    return genai.Client(vertexai=True, http_options=options)


def vertex_client_with_account_as_key(account: str, url: str) -> genai.Client:
    """The application has the service account, base64-encoded, where a token would stand."""
    options = HttpOptions(
        base_url=url + VERTEX_LOCATION_PATH,
        base_url_resource_scope=ResourceScope.COLLECTION,
        headers={"Authorization": account},
    )
    return genai.Client(vertexai=True, http_options=options)


def _with_own_key(slug: str, client: Callable[[str], object]) -> Sdk:
    return Sdk(
        slug=slug,
        direct=lambda fake: client(fake.url + _direct_path(slug, client)),
        through=lambda url: client(f"{url}/{slug}"),
    )


def _direct_path(slug: str, client: Callable[[str], object]) -> str:
    """The base URL that the SDK itself has; Groq's SDK adds the version on its own."""
    path = gateway_config.BASE_PATHS[slug]
    return path.removesuffix("/openai/v1") if client is groq_client else path


SDKS = {
    "openai": _with_own_key("openai", openai_client),
    "anthropic": _with_own_key("anthropic", anthropic_client),
    "gemini": _with_own_key("google-ai-studio", gemini_client),
    "groq": _with_own_key("groq", groq_client),
    "mistral": _with_own_key("mistral", mistral_client),
    "cohere": _with_own_key("cohere", cohere_client),
    "bedrock": Sdk(
        slug="aws-bedrock",
        direct=lambda fake: bedrock_client(fake.tls_url),
        through=lambda url: bedrock_client(url + BEDROCK_PATH, signature_version=UNSIGNED),
        credential_headers=frozenset(
            {"authorization", "user-agent", "x-amz-date", "x-amz-content-sha256"}
        ),
    ),
    "vertex": Sdk(
        slug="google-vertex-ai",
        direct=lambda fake: vertex_client_with_own_account(fake, fake.tls_url),
        through=lambda url: vertex_client_without_account(url + VERTEX_PATH),
        credential_headers=frozenset({"authorization"}),
    ),
}
