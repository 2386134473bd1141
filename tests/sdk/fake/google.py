"""A fake of Google's token endpoint, and the check of the tokens it gave out."""

from __future__ import annotations

from urllib.parse import parse_qs

import jwt

from .http import Reply, Request, json_reply
from .identities import GOOGLE_ACCOUNT, GOOGLE_SCOPE

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LONGEST_LIFE_SECONDS = 3600
# Google's own libraries state this audience whatever the address of the token server.
GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"


class TokenServer:
    """Exchanges signed assertions of one service account for short-lived tokens."""

    def __init__(self, public_key: bytes, own_address: str) -> None:
        self._public_key = public_key
        self._audiences = [GOOGLE_AUDIENCE, own_address]
        self._issued: set[str] = set()

    def exchange(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("grant_type") != GRANT_TYPE:
            return json_reply(400, {"error": "unsupported_grant_type"})
        try:
            self._verify(form.get("assertion", ""))
        except jwt.InvalidTokenError as error:
            return json_reply(400, {"error": "invalid_grant", "error_description": str(error)})
        token = f"ya29.fake-{len(self._issued) + 1}"
        self._issued.add(token)
        return json_reply(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def check_token(self, request: Request) -> Reply | None:
        """None when the request carries a token given out here, else Google's refusal."""
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        if scheme == "Bearer" and token in self._issued:
            return None
        message = "Request had invalid authentication credentials."
        error = {"code": 401, "message": message, "status": "UNAUTHENTICATED"}
        return json_reply(401, {"error": error})

    def _verify(self, assertion: str) -> None:
        claims = jwt.decode(
            assertion,
            self._public_key,
            algorithms=["RS256"],
            audience=self._audiences,
            issuer=GOOGLE_ACCOUNT,
            options={"require": ["iss", "aud", "iat", "exp"]},
        )
        if GOOGLE_SCOPE not in claims.get("scope", "").split():
            raise jwt.InvalidTokenError(f"scope must name {GOOGLE_SCOPE}")
        if claims["exp"] - claims["iat"] > LONGEST_LIFE_SECONDS:
            raise jwt.InvalidTokenError("the assertion lives longer than an hour")
