"""The tables behind `test_prices.py`: how golden answers are asked for, and what they must cost.

A golden answer is a case by itself; it needs a line here where its operation is new, where it does
not name its model, or where its cost is worked out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    ("azure-openai", "chat"): Operation(
        f"{AZURE}/chat/completions?{AZURE_VERSION}", "azure", "chat"
    ),
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
    "usage/cohere-2c76033ccf1d",  # the first version of Cohere's chat
}
# Nobody lists a price.
UNPRICED = {
    "usage/aws-bedrock-6af0966d7c28",  # Llama 2
    "usage/ollama-a00af7557d9b",
    "usage/voyage-9526921aa1ed",  # reranking
    "usage/writer-4145d5334187",
}


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
        return self.name not in UNPRICED

    @property
    def is_read_by_them(self) -> bool:
        return self.operation.flavor is not None and self.name not in NOT_READ_BY_THEM


@dataclass(frozen=True)
class Difference:
    """What they read of an answer instead, what they compute if that is not the same, and why."""

    theirs: dict[str, int]
    reason: str
    their_cost: Decimal | None = None


# All that they have otherwise; each time it is theirs that is not right, or is so in other words.
DIFFERENCES = {
    "documented/openai-responses-web-search": Difference(
        {"input": 9231, "output": 812, "cached_input": 4096, "reasoning": 640},
        "OpenAI counts searches beside its usage, in `tool_usage`, which they do not read",
        # 5135 x 1.25 + 4096 x 0.125 + 812 x 10 = 6418.75 + 512 + 8120
        Decimal("0.01505075"),
    ),
    "documented/perplexity-agent": Difference(
        {"input": 11575, "output": 227, "cached_input": 5270, "reasoning": 28, "web_searches": 2},
        "they do not read `cache_creation_input_tokens`, which costs what other input does",
    ),
    "documented/perplexity-deep-research": Difference(
        {"input": 33, "output": 101176, "reasoning": 73997, "web_searches": 18},
        "they have citations as a kind of output; they are read, and cost what input does",
    ),
    "documented/xai-responses-long-context": Difference(
        {"input": 201478, "output": 914, "cached_input": 192, "reasoning": 702},
        "they do not read xAI's searches; neither list has a price for them",
    ),
}

# Dollars. Each is worked out above itself in millionths of a dollar: tokens times the price list's
# rate in dollars for a million, and for searches and requests a thousand times theirs.
WORKED = {
    # Sonnet 4.5: 21 x 3 + 1800 cached x 0.3 + 456 written for 5m x 3.75 + 100 for 1h x 6
    # + 503 x 15 = 63 + 540 + 1710 + 600 + 7545
    "documented/anthropic-cache-ttls": Decimal("0.010458"),
    "documented/anthropic-cache-ttls-stream": Decimal("0.010458"),
    "documented/bedrock-converse-cache": Decimal("0.010458"),
    "documented/vertex-claude": Decimal("0.010458"),
    "documented/vertex-claude-stream": Decimal("0.010458"),
    # A tenth more in one region.
    "documented/bedrock-converse-cache-stream": Decimal("0.0115038"),
    "documented/bedrock-invoke-claude-stream": Decimal("0.0115038"),
    # 105 x 3 + 7123 x 0.3 + 7345 x 3.75 + 6039 x 15 + 3 searches x 10000
    # = 315 + 2136.9 + 27543.75 + 90585 + 30000
    "documented/anthropic-web-search": Decimal("0.15058065"),
    # Opus 4.1: 10682 x 15 + 510 x 75 + 1 search x 10000 = 160230 + 38250 + 10000
    "documented/anthropic-web-search-stream": Decimal("0.20848"),
    # 203,201 tokens read, most from the cache: 1201 x 6 + 190000 x 0.6 + 2000 x 7.5 + 10000 x 12
    # + 901 x 22.5 = 7206 + 114000 + 15000 + 120000 + 20272.5
    "documented/anthropic-long-context": Decimal("0.2764785"),
    "documented/anthropic-long-context-stream": Decimal("0.2764785"),
    # 200,000 are not more than 200,000: 10000 x 3 + 190000 x 0.3 + 901 x 15
    # = 30000 + 57000 + 13515
    "documented/anthropic-200000-tokens": Decimal("0.100515"),
    # Haiku 4.5 in a batch: 1013 x 0.5 + 2048 x 0.05 + 77 x 2.5 = 506.5 + 102.4 + 192.5
    "documented/anthropic-batch": Decimal("0.0008014"),
    # GPT-5, flex: 86 x 0.625 + 1920 x 0.0625 + 300 x 5 = 53.75 + 120 + 1500
    "documented/openai-chat-flex": Decimal("0.00167375"),
    # GPT-4.1, priority: 86 x 3.5 + 1920 x 0.875 + 300 x 14 = 301 + 1680 + 4200
    "documented/openai-chat-priority-stream": Decimal("0.006181"),
    # GPT-5, priority: 86 x 2.5 + 1920 x 0.25 + 300 x 20 = 215 + 480 + 6000
    "documented/openai-responses-priority-stream": Decimal("0.006695"),
    # 1100 of sound x 32 + 107 x 2.5 + 560 of sound x 64 + 53 x 10
    # = 35200 + 267.5 + 35840 + 530
    "documented/openai-chat-audio": Decimal("0.0718375"),
    # GPT-5: 5135 x 1.25 + 4096 x 0.125 + 812 x 10 + 3 searches x 10000
    # = 6418.75 + 512 + 8120 + 30000
    "documented/openai-responses-web-search": Decimal("0.04505075"),
    # GPT-5.4 above 272,000: 267713 x 5 + 12288 x 0.5 + 1003 x 22.5
    # = 1338565 + 6144 + 22567.5
    "documented/openai-responses-long-context": Decimal("1.3672765"),
    # Gemini 2.5 Pro above 200,000: 3424 x 2.5 + 200658 x 0.25 + 2937 x 15
    # = 8560 + 50164.5 + 44055
    "documented/google-long-context": Decimal("0.1027795"),
    "documented/google-long-context-stream": Decimal("0.1027795"),
    # 7409 of sound x 1 + 12441 cached of sound x 0.1 + 19372 cached x 0.03 + 11535 x 0.3
    # + 9603 x 2.5 = 7409 + 1244.1 + 581.16 + 3460.5 + 24007.5
    "documented/google-audio": Decimal("0.03670226"),
    # Grok 4.3: 26286 x 1.25 + 192 x 0.2 + 914 x 2.5 = 32857.5 + 38.4 + 2285; the answer says so
    # itself: 351809000 "ticks", of which ten thousand million are a dollar
    "documented/xai-responses": Decimal("0.0351809"),
    # Above 200,000: 201286 x 2.5 + 192 x 0.4 + 914 x 5 = 503215 + 76.8 + 4570
    "documented/xai-responses-long-context": Decimal("0.5078618"),
    # 94 x 3 + 100 written x 3.75 + 2 x 15 = 282 + 375 + 30
    "documented/openrouter-chat": Decimal("0.000687"),
    "documented/openrouter-chat-stream": Decimal("0.000687"),
    # 33 x 0.15 + 4608 x 0.075 + 1817 x 0.6 = 4.95 + 345.6 + 1090.2
    "documented/groq-cached-stream": Decimal("0.00144075"),
    # 33 and 20016 of sources x 2 + 7163 x 8 + 73997 of thoughts x 3 + 18 searches x 5000
    # = 40098 + 57304 + 221991 + 90000
    "documented/perplexity-deep-research": Decimal("0.409393"),
    # 14 x 1 + 301 x 1 + 1 request x 12000
    "documented/perplexity-sonar": Decimal("0.012315"),
    # 6305 x 0.25 + 5270 x 0.0625 + 227 x 2.5 + 2 searches x 2500
    # = 1576.25 + 329.375 + 567.5 + 5000; the answer says 0.00747 itself
    "documented/perplexity-agent": Decimal("0.007473125"),
}
