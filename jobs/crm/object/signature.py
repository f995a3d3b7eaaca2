"""AWS Signature Version 4 in the header fields of a call to S3, as "Authenticating Requests: Using the Authorization
Header" of the S3 API reference has it. S3 encodes a path once; other services of AWS do so twice.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"


class Key(msgspec.Struct, frozen=True):
    """What signs the calls of one destination."""

    access_key: str
    secret: str
    region: str


def encode_path(path: str) -> str:
    """A path as it is sent and signed; slashes stay."""
    return quote(path, safe=f"/{_UNRESERVED}")


def encode_query(query: Mapping[str, str]) -> str:
    """A query as it is sent and signed."""
    pairs = sorted((quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


def sign(
    method: str, path: str, query: str, headers: Mapping[str, str], content_hash: str, key: Key, now: datetime
) -> dict[str, str]:
    """`headers` with what signs them all: `Host` must be among them.

    `path` and `query` are encoded; `content_hash` is the SHA-256 of the body, in hexadecimal digits; `now` is in UTC.
    """
    at = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{at[:8]}/{key.region}/s3/aws4_request"
    sent = {**headers, "X-Amz-Content-Sha256": content_hash, "X-Amz-Date": at}
    fields = sorted((name.lower(), " ".join(value.split())) for name, value in sent.items())
    names = ";".join(name for name, _ in fields)
    canonical = "\n".join(
        (method, path, query, *(f"{name}:{value}" for name, value in fields), "", names, content_hash)
    )
    to_sign = "\n".join((_ALGORITHM, at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signing = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        signing = _hmac(signing, part)
    signature = _hmac(signing, to_sign).hex()
    credential = f"{_ALGORITHM} Credential={key.access_key}/{scope}"
    return {**sent, "Authorization": f"{credential}, SignedHeaders={names}, Signature={signature}"}


def _hmac(key: bytes, message: str) -> bytes:
    return hmac.digest(key, message.encode(), "sha256")
