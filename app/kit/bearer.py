"""Bearer tokens that a setting names, as the API and a worker's port take them."""

import hmac


def bears(authorization: str, token: str) -> bool:
    """Whether this `Authorization` field carries the token; an empty one is nobody's."""
    scheme, _, sent = authorization.partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), token.encode())
