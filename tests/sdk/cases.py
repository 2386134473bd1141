"""The one table of calls. Each is made directly and through the gateway, and must not differ.

To add a case: a fixture that answers it, and a line here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from google.genai import types

QUESTION = "What does the sea say, in one line? Ça va 🌊"
TOOL_PARAMETERS = {
    "type": "object",
    "properties": {"port": {"type": "string"}, "hour": {"type": "integer"}},
    "required": ["port"],
}
TOOL = {"name": "tide_height", "description": "Height of the tide at an hour."}
MESSAGES = [{"role": "user", "content": QUESTION}]
CLAUDE = "anthropic.claude-haiku-4-5-20251001-v1:0"


class Ends(Enum):
    """How a call ends when it is made directly, and so how it must end through the gateway."""

    WHOLE = "whole"
    REFUSED = "refused"
    BROKEN = "broken"


@dataclass(frozen=True)
class Case:
    """A call of one SDK. A stream is consumed event by event."""

    name: str
    sdk: str
    call: Callable[[Any], Any]
    stream: bool
    ends: Ends


def openai_chat(client: Any, model: str, **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=MESSAGES, **options)


def openai_chat_with_tool(client: Any, model: str) -> Any:
    tool = {"type": "function", "function": {**TOOL, "parameters": TOOL_PARAMETERS}}
    return openai_chat(client, model, tools=[tool], tool_choice="auto")


def openai_chat_stream(client: Any, model: str) -> Any:
    return openai_chat(client, model, stream=True, stream_options={"include_usage": True})


def openai_responses(client: Any, model: str, **options: Any) -> Any:
    return client.responses.create(model=model, input=QUESTION, **options)


def openai_embeddings(client: Any, model: str) -> Any:
    return client.embeddings.create(model=model, input=["ebb", "flow"])


def anthropic_messages(client: Any, model: str, **options: Any) -> Any:
    return client.messages.create(model=model, max_tokens=2048, messages=MESSAGES, **options)


def anthropic_messages_with_tool(client: Any, model: str) -> Any:
    tool = {**TOOL, "input_schema": TOOL_PARAMETERS}
    return anthropic_messages(client, model, tools=[tool])


def anthropic_thinking_stream(client: Any, model: str) -> Any:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return anthropic_messages(client, model, thinking=thinking, stream=True)


def gemini_generate(client: Any, model: str, **options: Any) -> Any:
    return client.models.generate_content(model=model, contents=QUESTION, **options)


def gemini_generate_with_tool(client: Any, model: str) -> Any:
    function = {**TOOL, "parameters_json_schema": TOOL_PARAMETERS}
    tool = types.Tool(function_declarations=[types.FunctionDeclaration(**function)])
    return gemini_generate(client, model, config=types.GenerateContentConfig(tools=[tool]))


def gemini_stream(client: Any, model: str) -> Any:
    return client.models.generate_content_stream(model=model, contents=QUESTION)


def mistral_chat(client: Any, model: str) -> Any:
    return client.chat.complete(model=model, messages=MESSAGES)


def mistral_stream(client: Any, model: str) -> Any:
    return client.chat.stream(model=model, messages=MESSAGES)


def cohere_chat(client: Any, model: str) -> Any:
    return client.chat(model=model, messages=MESSAGES)


def cohere_stream(client: Any, model: str) -> Any:
    return client.chat_stream(model=model, messages=MESSAGES)


def bedrock_converse(client: Any, model: str, **options: Any) -> Any:
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    return client.converse(modelId=model, messages=messages, **options)


def bedrock_converse_with_tool(client: Any, model: str) -> Any:
    tool = {"toolSpec": {**TOOL, "inputSchema": {"json": TOOL_PARAMETERS}}}
    return bedrock_converse(client, model, toolConfig={"tools": [tool]})


def bedrock_converse_stream(client: Any, model: str) -> Any:
    messages = [{"role": "user", "content": [{"text": QUESTION}]}]
    return client.converse_stream(modelId=model, messages=messages)["stream"]


def bedrock_invoke(client: Any, model: str) -> Any:
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64, "messages": MESSAGES}
    answer = client.invoke_model(modelId=model, body=json.dumps(body))
    return {"contentType": answer["contentType"], "body": answer["body"].read()}


def bedrock_invoke_stream(client: Any, model: str) -> Any:
    body = json.dumps({"inputText": QUESTION})
    return client.invoke_model_with_response_stream(modelId=model, body=body)["body"]


# Name: SDK, call, model. The model chooses the fixture that answers.
ANSWERS = {
    "openai-chat": ("openai", openai_chat, "gpt-4.1-nano"),
    "openai-chat-tool": ("openai", openai_chat_with_tool, "gpt-4.1-mini"),
    "openai-chat-gzip": ("openai", openai_chat, "gpt-gzip"),
    "openai-responses": ("openai", openai_responses, "gpt-4.1-nano"),
    "openai-embeddings": ("openai", openai_embeddings, "text-embedding-3-small"),
    "anthropic-messages": ("anthropic", anthropic_messages, "claude-haiku-4-5"),
    "anthropic-tool": ("anthropic", anthropic_messages_with_tool, "claude-sonnet-5"),
    "anthropic-gzip": ("anthropic", anthropic_messages, "claude-gzip"),
    "gemini-generate": ("gemini", gemini_generate, "gemini-2.5-flash"),
    "gemini-tool": ("gemini", gemini_generate_with_tool, "gemini-2.5-pro"),
    "gemini-gzip": ("gemini", gemini_generate, "gemini-gzip"),
    "groq-chat": ("groq", openai_chat, "llama-3.1-8b-instant"),
    "groq-gzip": ("groq", openai_chat, "llama-gzip"),
    "mistral-chat": ("mistral", mistral_chat, "mistral-small-latest"),
    "mistral-gzip": ("mistral", mistral_chat, "mistral-gzip"),
    "cohere-chat": ("cohere", cohere_chat, "command-a-03-2025"),
    "cohere-gzip": ("cohere", cohere_chat, "command-gzip"),
    "bedrock-converse": ("bedrock", bedrock_converse, "meta.llama3-2-1b-instruct-v1:0"),
    "bedrock-converse-tool": ("bedrock", bedrock_converse_with_tool, CLAUDE),
    "bedrock-invoke": ("bedrock", bedrock_invoke, CLAUDE),
    "vertex-generate": ("vertex", gemini_generate, "gemini-2.5-flash"),
}
STREAMS = {
    "openai-chat-stream": ("openai", openai_chat_stream, "gpt-4.1-nano"),
    "openai-chat-stream-gzip": ("openai", openai_chat_stream, "gpt-gzip"),
    "openai-responses-stream": ("openai", partial(openai_responses, stream=True), "gpt-4.1-nano"),
    "anthropic-thinking-stream": ("anthropic", anthropic_thinking_stream, "claude-sonnet-5"),
    "anthropic-stream-gzip": ("anthropic", anthropic_thinking_stream, "claude-gzip"),
    "gemini-stream": ("gemini", gemini_stream, "gemini-2.5-flash"),
    "groq-stream": ("groq", partial(openai_chat, stream=True), "llama-3.1-8b-instant"),
    "mistral-stream": ("mistral", mistral_stream, "mistral-small-latest"),
    "cohere-stream": ("cohere", cohere_stream, "command-a-03-2025"),
    "bedrock-converse-stream": ("bedrock", bedrock_converse_stream, "amazon.nova-lite-v1:0"),
    "bedrock-invoke-stream": ("bedrock", bedrock_invoke_stream, "amazon.titan-text-express-v1"),
    "vertex-stream": ("vertex", gemini_stream, "gemini-2.5-flash"),
}
ERROR_CALLS = {
    "openai": openai_chat,
    "anthropic": anthropic_messages,
    "gemini": gemini_generate,
    "groq": openai_chat,
    "mistral": mistral_chat,
    "cohere": cohere_chat,
    "bedrock": bedrock_converse,
}
ERROR_STATUSES = (401, 429, 500)
# Streams that the provider breaks off, between two events or inside one: the SDK must raise,
# however the gateway tells it.
BROKEN_CALLS = {
    "openai-chat-cut": ("openai", openai_chat_stream, "gpt-cut"),
    "openai-chat-cut-inside": ("openai", openai_chat_stream, "gpt-cut-inside"),
    "openai-chat-gzip-cut": ("openai", openai_chat_stream, "gpt-gzip-cut"),
    "openai-responses-cut": ("openai", partial(openai_responses, stream=True), "gpt-cut"),
    "anthropic-cut": ("anthropic", anthropic_thinking_stream, "claude-cut"),
    "anthropic-cut-inside": ("anthropic", anthropic_thinking_stream, "claude-cut-inside"),
    "gemini-cut": ("gemini", gemini_stream, "gemini-cut"),
    "gemini-cut-inside": ("gemini", gemini_stream, "gemini-cut-inside"),
    "groq-cut": ("groq", partial(openai_chat, stream=True), "llama-cut"),
    "mistral-cut": ("mistral", mistral_stream, "mistral-cut"),
    "cohere-cut": ("cohere", cohere_stream, "command-cut"),
    "bedrock-converse-cut": ("bedrock", bedrock_converse_stream, "bedrock-cut"),
    "bedrock-converse-cut-inside": ("bedrock", bedrock_converse_stream, "bedrock-cut-inside"),
    "bedrock-invoke-cut": ("bedrock", bedrock_invoke_stream, "bedrock-cut"),
}


REFUSED_CALLS = {
    f"{sdk}-error-{status}": (sdk, call, f"error-{status}")
    for sdk, call in ERROR_CALLS.items()
    for status in ERROR_STATUSES
}


def _cases(
    rows: dict[str, tuple[str, Callable[..., Any], str]], *, stream: bool, ends: Ends
) -> list[Case]:
    return [
        Case(name, sdk, partial(call, model=model), stream, ends)
        for name, (sdk, call, model) in rows.items()
    ]


CASES = [
    *_cases(ANSWERS, stream=False, ends=Ends.WHOLE),
    *_cases(STREAMS, stream=True, ends=Ends.WHOLE),
    *_cases(REFUSED_CALLS, stream=False, ends=Ends.REFUSED),
    *_cases(BROKEN_CALLS, stream=True, ends=Ends.BROKEN),
]


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)
