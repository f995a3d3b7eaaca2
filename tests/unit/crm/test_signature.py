"""Signatures of calls to S3: the examples of its API reference, and botocore as an oracle for everything else."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from jobs.crm.object.signature import Key, encode_path, encode_query, sign

EXAMPLE = Key("AKIA" + "IOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1")
AT = datetime(2013, 5, 24, tzinfo=UTC)
HOST = {"Host": "examplebucket.s3.amazonaws.com"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/", {"lifecycle": ""}, {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/",
            {"prefix": "J", "max-keys": "2"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["get", "put", "lifecycle", "list"],
)
def test_the_examples_of_the_reference_are_signed_as_there(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, signature: str
) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    content = hashlib.sha256(body).hexdigest()
    sent = sign(method, encode_path(path), encode_query(query), HOST | headers, content, EXAMPLE, AT)
    assert sent["Authorization"].endswith(f"Signature={signature}")
    assert f"Credential={EXAMPLE.access_key}/20130524/us-east-1/s3/aws4_request," in sent["Authorization"]


def test_any_call_is_signed_as_botocore_signs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    signs = "aZ09-_.~=+ /()*'!$&,;:@%ü"
    for _ in range(300):
        now = datetime(2020, 1, 1, tzinfo=UTC).replace(day=rng.randint(1, 31), hour=rng.randint(0, 23))
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda at=now: at)
        key = Key("AK" + "X" * rng.randint(1, 18), "".join(rng.choices(signs, k=40)), rng.choice(["us-east-1", "fsn1"]))
        path = encode_path("/" + "".join(rng.choices(signs, k=rng.randint(0, 30))))
        query = encode_query({"".join(rng.choices(signs, k=5)): "".join(rng.choices(signs, k=3)) for _ in range(3)})
        body = rng.randbytes(rng.randint(0, 50))
        headers = {"Host": "127.0.0.1:9000", "Content-Type": "application/gzip", "X-Amz-Storage-Class": "  two  words "}
        theirs = AWSRequest("PUT", f"http://127.0.0.1:9000{path}?{query}", headers=dict(headers), data=body)
        S3SigV4Auth(Credentials(key.access_key, key.secret), "s3", key.region).add_auth(theirs)
        ours = sign("PUT", path, query, headers, hashlib.sha256(body).hexdigest(), key, now)
        assert ours["Authorization"] == theirs.headers["Authorization"]
