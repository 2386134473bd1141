"""Prints sigv4.json: requests and what botocore's signer makes of them.

    python tests/vectors/sigv4.py > tests/vectors/sigv4.json     (needs botocore; made with 1.44.5)

The keys are made up. Bodies stand in base64, because some are binary.
"""

import base64
import datetime
import json

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

LONG_TERM = {
    "accessKeyId": "AKIDEXAMPLE",
    "secretAccessKey": "made/up+SECRET+for/tests+0123456789abcdef",
    "region": "eu-central-1",
}
TEMPORARY = LONG_TERM | {"accessKeyId": "ASIAEXAMPLE", "sessionToken": "made-up-session-token/with+signs=="}

JSON_TYPE = ("content-type", "application/json")
HAIKU = "anthropic.claude-3-haiku-20240307-v1"
PROFILE = "arn%3Aaws%3Abedrock%3Aus-west-2%3A123456789012%3Ainference-profile%2Fus.example-v1%3A0"
PROMPT = b'{"messages":[{"role":"user","content":[{"text":"Name three lighthouses."}]}]}'
UMLAUTS = '{"inputText":"Grüße aus Köln – 你好"}'.encode()
EVERY_BYTE = bytes(range(256)) * 5

# name, method, path, query, headers, body; else: key, region, service, time, host
CASES = [
    ("model id with an encoded colon", "POST", f"/model/{HAIKU}%3A0/invoke", None, [JSON_TYPE], PROMPT, {}),
    ("model id with a raw colon", "POST", f"/model/{HAIKU}:0/invoke", None, [JSON_TYPE], PROMPT, {}),
    ("streaming", "POST", f"/model/{HAIKU}%3A0/converse-stream", None, [JSON_TYPE], PROMPT, {}),
    ("inference profile ARN, encoded slash", "POST", f"/model/{PROFILE}/converse", None, [JSON_TYPE], PROMPT,
     {"region": "us-west-2", "host": "bedrock-runtime.us-west-2.amazonaws.com"}),
    ("lower-case percent-encoding", "POST", f"/model/{HAIKU}%3a0/invoke", None, [JSON_TYPE], PROMPT, {}),
    ("characters that need not be encoded", "POST", "/model/a.b-c_d~e/invoke", None, [JSON_TYPE], PROMPT, {}),
    ("sub-delimiters in the path", "POST", "/model/a,b;c=d@e!f$g&h(i)*+j/invoke", None, [JSON_TYPE], PROMPT, {}),
    ("doubled and dotted segments", "POST", "/model//x/./y/../invoke", None, [JSON_TYPE], PROMPT, {}),
    ("trailing slash", "GET", "/async-invoke/", None, [], b"", {}),
    ("root", "GET", "/", None, [], b"", {}),
    ("query out of order", "GET", "/async-invoke", "sortOrder=Descending&maxResults=5&sortBy=SubmissionTime", [], b"", {}),
    ("query with percent-encodings", "GET", "/async-invoke", "nextToken=a%2Bb%2Fc%3D%3D&name=two%20words", [], b"", {}),
    ("query with repeated and empty parameters", "GET", "/async-invoke", "b=2&a=&b=1&flag", [], b"", {}),
    ("empty body", "POST", f"/model/{HAIKU}%3A0/invoke", None, [], b"", {}),
    ("text beyond ASCII", "POST", "/model/amazon.titan-embed-text-v2%3A0/invoke", None, [JSON_TYPE], UMLAUTS, {}),
    ("binary body", "POST", "/model/x/invoke", None, [("content-type", "application/octet-stream")], EVERY_BYTE, {}),
    ("guardrail headers are signed", "POST", f"/model/{HAIKU}%3A0/invoke", None,
     [JSON_TYPE, ("x-amzn-bedrock-trace", "ENABLED"), ("x-amzn-bedrock-guardrailidentifier", "  gr-1   two  ")], PROMPT, {}),
    ("temporary key", "POST", f"/model/{HAIKU}%3A0/invoke", None, [JSON_TYPE], PROMPT, {"key": TEMPORARY}),
    ("another service", "POST", "/anthropic/v1/messages", None, [JSON_TYPE], PROMPT,
     {"service": "bedrock-mantle", "host": "bedrock-mantle.us-east-1.api.aws"}),
    ("host with a port", "POST", f"/model/{HAIKU}%3A0/invoke", None, [JSON_TYPE], PROMPT,
     {"host": "bedrock.internal.example:8443"}),
    ("another day", "POST", f"/model/{HAIKU}%3A0/invoke", None, [JSON_TYPE], PROMPT, {"time": 1_709_251_199}),
]


def sign(name, method, path, query, headers, body, rest):
    case = {
        "name": name,
        "key": LONG_TERM,
        "region": "us-east-1",
        "service": "bedrock",
        "time": 1_790_000_000,
        "host": "bedrock-runtime.us-east-1.amazonaws.com",
        "method": method,
        "path": path,
        "query": query,
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    } | rest
    key = case["key"]
    now = datetime.datetime.fromtimestamp(case["time"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda: now
    url = f"https://{case['host']}{path}" + ("" if query is None else f"?{query}")
    request = AWSRequest(method=method, url=url, data=body)
    for header, value in headers:
        request.headers.add_header(header, value)
    credentials = Credentials(key["accessKeyId"], key["secretAccessKey"], key.get("sessionToken"))
    botocore.auth.SigV4Auth(credentials, case["service"], case["region"]).add_auth(request)
    expected = {name.lower(): value for name, value in request.headers.items()}
    names = ("authorization", "x-amz-date", "x-amz-security-token")
    return case | {"expected": {name: expected[name] for name in names if name in expected}}


print(json.dumps([sign(*case) for case in CASES], indent=1, ensure_ascii=False))
