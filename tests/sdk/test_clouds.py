"""The two clouds whose credentials are more than a header: AWS signatures, Google tokens."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import gateway_config
import recorded
import stack
from cases import case_named
from clients import (
    BEDROCK_PATH,
    SDKS,
    VERTEX_PATH,
    vertex_client_with_account_as_key,
    vertex_client_with_own_account,
)
from comparison import go
from fake.app import TOKEN_PATH
from fake.google import GOOGLE_AUDIENCE
from fake.identities import (
    AWS_CLIENT_KEY_ID,
    AWS_REGION,
    AWS_SECRETS,
    AWS_SERVICE,
    AWS_STORED_KEY_ID,
    GOOGLE_LOCATION,
)
from google.genai.errors import ClientError
from stack import Fake

AWS_HOST = f"bedrock-runtime.{AWS_REGION}.amazonaws.com"
GOOGLE_HOST = f"{GOOGLE_LOCATION}-aiplatform.googleapis.com"
VERTEX_TEXT = "Wind backing, glass falling."
CALLERS = 8


def test_the_gateway_signs_with_the_stored_key_for_the_aws_host(fake: Fake, gateway: str) -> None:
    asked = go(case_named("bedrock-converse"), SDKS["bedrock"].through(gateway), fake).asked
    assert recorded.header(asked, "host") == AWS_HOST
    assert f"Credential={AWS_STORED_KEY_ID}/" in recorded.header(asked, "authorization")


def test_a_request_signed_by_the_client_passes_untouched(fake: Fake, gateway: str) -> None:
    path = "/model/meta.llama3-2-1b-instruct-v1%3A0/converse"
    signed = AWSRequest(
        method="POST",
        url=f"https://{AWS_HOST}{path}",
        headers={"content-type": "application/json"},
        data=b'{"messages":[{"role":"user","content":[{"text":"Ahoy"}]}]}',
    )
    credentials = Credentials(AWS_CLIENT_KEY_ID, AWS_SECRETS[AWS_CLIENT_KEY_ID])
    SigV4Auth(credentials, AWS_SERVICE, AWS_REGION).add_auth(signed)
    fake.take_records()
    answer = httpx.post(
        gateway + BEDROCK_PATH + path, content=signed.data, headers=dict(signed.headers)
    )
    assert answer.status_code == 200, answer.text
    [asked] = fake.take_records()
    for name, value in signed.headers.items():
        assert recorded.header(asked, name.lower()) == value, name


def test_a_forged_signature_is_refused_by_aws(gateway: str) -> None:
    """Guards the two tests above: the fake does tell right from wrong."""
    scope = f"{AWS_CLIENT_KEY_ID}/20260101/{AWS_REGION}/{AWS_SERVICE}/aws4_request"
    forged = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"
    answer = httpx.post(
        f"{gateway}{BEDROCK_PATH}/model/meta.llama3-2-1b-instruct-v1%3A0/converse",
        json={},
        headers={"authorization": forged, "x-amz-date": "20260101T000000Z"},
    )
    assert answer.status_code == 403
    assert answer.headers["x-amzn-errortype"] == "InvalidSignatureException"
    assert answer.headers["tollgate-error-source"] == "provider"


def test_many_requests_exchange_the_service_account_once(fake: Fake) -> None:
    case = case_named("vertex-generate")
    with stack.gateway(fake, "vertex", gateway_config.plain(fake)) as url:
        clients = [SDKS["vertex"].through(url) for _ in range(CALLERS)]
        fake.take_records()
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = list(pool.map(case.call, clients))
        answers.append(case.call(clients[0]))
        asked = fake.take_records()
    assert {answer.text for answer in answers} == {VERTEX_TEXT}
    assert len(recorded.provider_requests(asked)) == len(answers)
    assert sum(record["path"] == TOKEN_PATH for record in asked) == 1


def test_a_ready_google_token_passes_untouched(fake: Fake, gateway: str) -> None:
    client = vertex_client_with_own_account(fake, gateway + VERTEX_PATH)
    fake.take_records()
    answer = case_named("vertex-generate").call(client)
    assert answer.text == VERTEX_TEXT
    exchange, asked = fake.take_records()
    assert exchange["path"] == TOKEN_PATH
    assert "python-requests" in recorded.header(exchange, "user-agent"), "not the client's own"
    assert recorded.header(asked, "host") == GOOGLE_HOST


@pytest.mark.parametrize("scheme", ["Bearer ", ""])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_clients_own_service_account_is_exchanged_once(
    fake: Fake, scheme: str, encode: Callable[[bytes], bytes]
) -> None:
    account = {**gateway_config.service_account(fake), "token_uri": GOOGLE_AUDIENCE}
    own = scheme + encode(json.dumps(account).encode()).decode()
    case = case_named("vertex-generate")
    name = f"vertex-{scheme.strip() or 'bare'}-{encode.__name__}"
    with stack.gateway(fake, name, gateway_config.without_stored_keys(fake)) as url:
        client = vertex_client_with_account_as_key(own, url + VERTEX_PATH)
        fake.take_records()
        answers = [case.call(client) for _ in range(3)]
        exchange, *asked = fake.take_records()
    assert {answer.text for answer in answers} == {VERTEX_TEXT}
    assert exchange["path"] == TOKEN_PATH
    assert recorded.header(exchange, "host") == "oauth2.googleapis.com"
    tokens = {recorded.header(request, "authorization") for request in asked}
    assert len(asked) == len(answers)
    assert len(tokens) == 1
    assert tokens.pop().startswith("Bearer ya29.")


def test_a_clients_account_never_sends_the_gateway_elsewhere(fake: Fake, gateway: str) -> None:
    account = json.dumps(gateway_config.service_account(fake))
    own = "Bearer " + base64.b64encode(account.encode()).decode()
    client = vertex_client_with_account_as_key(own, gateway + VERTEX_PATH)
    fake.take_records()
    with pytest.raises(ClientError) as refusal:
        case_named("vertex-generate").call(client)
    assert refusal.value.code == 400
    assert "`token_uri` must be Google's" in str(refusal.value)
    assert fake.take_records() == []
