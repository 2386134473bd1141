"""The tables behind `test_prices.py`: how golden answers are asked for, and what they must cost.

A golden answer is a case by itself; it needs a line here where its operation is new, where it does
not name its model, or where its cost is worked out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from fake.golden import Golden
from fake.identities import AWS_REGION, AZURE_RESOURCE, GOOGLE_LOCATION, GOOGLE_PROJECT

BEDROCK = f"aws-bedrock/bedrock-runtime/{AWS_REGION}/model/{{model}}"
AZURE = f"azure-openai/{AZURE_RESOURCE}/deployment"
AZURE_VERSION = "api-version=2024-10-21"
GEMINI = "google-ai-studio/v1beta/models/{model}"
VERTEX = (
    f"google-vertex-ai/v1/projects/{GOOGLE_PROJECT}/locations/{GOOGLE_LOCATION}/publishers"
    "/{publisher}/models/{model}"
)
VERTEX_GEMINI = VERTEX.replace("{publisher}", "google")
VERTEX_CLAUDE = VERTEX.replace("{publisher}", "anthropic")


@dataclass(frozen=True)
class Operation:
    """Where an operation is asked for behind the gateway's URL, and their rules to read it.

    `prices` is whose prices count; `flavor` is None where they have no rules.
    """

    path: str
    prices: str
    flavor: str | None
    reader: str | None = None

    @property
    def read_as(self) -> str:
        return self.reader or self.prices


# Provider and operation of a golden answer.
OPERATIONS = {
    ("anthropic", "messages"): Operation("anthropic/v1/messages", "anthropic", "default"),
    ("aws-bedrock", "converse"): Operation(f"{BEDROCK}/converse", "aws", "default"),
    ("aws-bedrock", "converse-stream"): Operation(f"{BEDROCK}/converse-stream", "aws", "default"),
    ("aws-bedrock", "invoke"): Operation(f"{BEDROCK}/invoke", "aws", "anthropic"),
    ("aws-bedrock", "invoke-stream"): Operation(
        f"{BEDROCK}/invoke-with-response-stream", "aws", "anthropic"
    ),
    ("azure-openai", "chat"): Operation(f"{AZURE}/chat/completions?{AZURE_VERSION}", "azure", "chat"),
    ("azure-openai", "embeddings"): Operation(
        f"{AZURE}/embeddings?{AZURE_VERSION}", "azure", "embeddings"
    ),
    ("cohere", "cohere-chat"): Operation("cohere/v2/chat", "cohere", "default"),
    ("cohere", "embed"): Operation("cohere/v2/embed", "cohere", "embeddings"),
    ("deepseek", "chat"): Operation("deepseek/chat/completions", "deepseek", "chat"),
    ("google-ai-studio", "generateContent"): Operation(
        f"{GEMINI}:generateContent", "google", "default"
    ),
    ("google-ai-studio", "streamGenerateContent"): Operation(
        f"{GEMINI}:streamGenerateContent?alt=sse", "google", "default"
    ),
    ("google-vertex-ai", "streamGenerateContent"): Operation(
        f"{VERTEX_GEMINI}:streamGenerateContent?alt=sse", "google", "default"
    ),
    ("google-vertex-ai", "rawPredict"): Operation(
        f"{VERTEX_CLAUDE}:rawPredict", "google", "anthropic"
    ),
    ("google-vertex-ai", "streamRawPredict"): Operation(
        f"{VERTEX_CLAUDE}:streamRawPredict", "google", "anthropic"
    ),
    ("grok", "chat"): Operation("grok/chat/completions", "x-ai", "chat"),
    ("grok", "responses"): Operation("grok/responses", "x-ai", "responses"),
    ("groq", "chat"): Operation("groq/chat/completions", "groq", "default"),
    ("mistral", "chat"): Operation("mistral/v1/chat/completions", "mistral", "default"),
    ("ollama", "cohere-chat"): Operation("ollama/api/chat", "", None),
    ("openai", "chat"): Operation("openai/chat/completions", "openai", "chat"),
    ("openai", "embeddings"): Operation("openai/embeddings", "openai", "embeddings"),
    ("openai", "responses"): Operation("openai/responses", "openai", "responses"),
    ("openrouter", "chat"): Operation("openrouter/chat/completions", "openrouter", "chat"),
    ("perplexity-ai", "chat"): Operation("perplexity-ai/chat/completions", "perplexity", "default"),
    ("perplexity-ai", "responses"): Operation(
        "perplexity-ai/v1/responses", "perplexity", "responses"
    ),
    ("together", "chat"): Operation("together/chat/completions", "together", "chat", "openai"),
    ("voyage", "embeddings"): Operation("voyage/embeddings", "voyageai", None),
    ("voyage", "rerank"): Operation("voyage/rerank", "voyageai", None),
    ("writer", "cohere-chat"): Operation("writer/chat", "", None),
}

# The model that was asked for, where the answer names none or another.
ASKED = {
    "usage/aws-bedrock-0e5fcdba8276": "meta.llama3-2-1b-instruct-v1:0",
    "usage/aws-bedrock-1bb4f634d44d": "amazon.titan-text-express-v1",
    "usage/aws-bedrock-57b731edfa64": "anthropic.claude-3-5-haiku-20241022-v1:0",
    "usage/aws-bedrock-59f538d39137": "anthropic.claude-3-sonnet-20240229-v1:0",
    "usage/aws-bedrock-68cc2130afb3": "amazon.titan-text-express-v1",
    "usage/aws-bedrock-6af0966d7c28": "meta.llama2-13b-chat-v1",
    "usage/cohere-2b4fdaa7e6f7": "command-r-08-2024",
    "usage/cohere-2c76033ccf1d": "command",
    "usage/cohere-8cabc39f9a68": "command-r",
    "documented/bedrock-converse-cache": "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "documented/bedrock-converse-cache-stream": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "documented/bedrock-invoke-claude-stream": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "documented/cohere-embed": "embed-v4.0",
    "documented/vertex-claude": "claude-sonnet-4-5@20250929",
    "documented/vertex-claude-stream": "claude-sonnet-4-5@20250929",
}
# They have no rules for how these report.
NOT_READ_BY_THEM = {
    "usage/aws-bedrock-68cc2130afb3",  # Titan
    "usage/aws-bedrock-6af0966d7c28",  # Llama
    "usage/cohere-2c76033ccf1d",  # the first version of Cohere's chat
}
# Nobody lists a price.
UNPRICED = {"ollama", "writer"}


@dataclass(frozen=True)
class Case:
    """A golden answer, and how it is asked for."""

    golden: Golden

    @property
    def name(self) -> str:
        return self.golden.name

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.golden.fields["provider"], self.golden.fields["operation"]]

    @property
    def asked(self) -> str:
        return ASKED.get(self.name, self.golden.fields["model"])

    @property
    def priced_as(self) -> str:
        """Bedrock's prices are of the profile that was asked for; its models do not know it."""
        model = self.golden.fields["model"]
        is_profile = self.golden.fields["provider"] == "aws-bedrock"
        return self.asked if is_profile or model == "none" else model

    @property
    def path(self) -> str:
        path = self.operation.path.format(model=self.asked)
        is_array = self.golden.body.startswith(b"[")
        return path.removesuffix("?alt=sse") if is_array else path

    @property
    def is_priced(self) -> bool:
        return self.golden.fields["provider"] not in UNPRICED

    @property
    def is_read_by_them(self) -> bool:
        return self.operation.flavor is not None and self.name not in NOT_READ_BY_THEM


@dataclass(frozen=True)
class Difference:
    """What they read and compute instead, and why that is not right."""

    theirs: dict[str, int]
    their_cost: Decimal
    reason: str


DIFFERENCES: dict[str, Difference] = {}
WORKED: dict[str, Decimal] = {}
