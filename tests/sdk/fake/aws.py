"""Refuses requests that are not signed for the host they arrived at, with botocore's own signer."""

from __future__ import annotations

import hashlib
import re

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .http import Reply, Request, json_reply
from .identities import AWS_REGION, AWS_SECRETS, AWS_SERVICE

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key_id>[^/]+)/(?P<scope>[^,]+), ?"
    r"SignedHeaders=(?P<signed>[^,]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


def check_signature(request: Request) -> Reply | None:
    """None when the signature is right, else the refusal AWS would send."""
    stated = AUTHORIZATION.fullmatch(request.header("authorization") or "")
    if stated is None:
        return _refusal("MissingAuthenticationTokenException", "Missing Authentication Token")
    if stated["key_id"] not in AWS_SECRETS:
        return _refusal("UnrecognizedClientException", "The security token is invalid.")
    stated_hash = request.header("x-amz-content-sha256")
    if stated_hash not in (None, hashlib.sha256(request.body).hexdigest()):
        return _refusal("InvalidSignatureException", "The stated body hash is not the body's.")
    if stated["signature"] != _expected_signature(request, stated):
        return _refusal("InvalidSignatureException", "The signature does not match the request.")
    return None


def _expected_signature(request: Request, stated: re.Match) -> str:
    key_id = stated["key_id"]
    signer = SigV4Auth(Credentials(key_id, AWS_SECRETS[key_id]), AWS_SERVICE, AWS_REGION)
    signed_names = stated["signed"].split(";")
    signed = AWSRequest(
        method=request.method,
        url=f"https://{request.header('host')}{request.target}",
        headers={name: request.header(name) or "" for name in signed_names},
        data=request.body,
    )
    signed.context["timestamp"] = request.header("x-amz-date") or ""
    return signer.signature(signer.string_to_sign(signed, signer.canonical_request(signed)), signed)


def _refusal(kind: str, message: str) -> Reply:
    return json_reply(403, {"message": message}, x_amzn_errortype=kind)
