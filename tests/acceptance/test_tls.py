"""`tranche serve` over TLS, as a client meets it, and the files that it refuses."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.acceptance.harness import START_SECONDS, Installation, until


class Files(NamedTuple):
    certificate: Path
    key: Path


def make(folder: Path, name: str, passphrase: bytes | None = None) -> Files:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = Files(folder / f"{name}.crt", folder / f"{name}.key")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return files


async def test_a_client_that_trusts_the_certificate_is_served_over_tls(tranche: Installation, folder: Path) -> None:
    files = make(folder, "server")
    words = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    api = tranche.start("api", "serve", "--port", str(tranche.port), *words)
    url = f"https://127.0.0.1:{tranche.port}"
    trusting = ssl.create_default_context(cafile=str(files.certificate))

    async with aiohttp.ClientSession() as session:

        async def get(path: str, **options: object) -> aiohttp.ClientResponse:
            async with session.get(path, **options) as answer:  # type: ignore[arg-type]
                await answer.read()
                return answer

        async def up() -> aiohttp.ClientResponse | None:
            assert api.child.returncode is None, api.text()
            with suppress(aiohttp.ClientConnectorError):
                return await get(f"{url}/health/live", ssl=trusting)
            return None

        answer = await until(up, START_SECONDS)
        assert answer.status == 200
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        old = ssl.create_default_context(cafile=str(files.certificate))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        assert (await get(f"{url}/health/live", ssl=old)).status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(f"{url}/health/live")
        with pytest.raises(aiohttp.ClientError):
            await get(url.replace("https", "http") + "/health/live")

    here = {"TRANCHE_URL": url}
    file = folder / "one.csv"
    file.write_text("id,email\nc1,c1@example.com\n")
    trusted = here | {"SSL_CERT_FILE": str(files.certificate)}
    code, text = await tranche.command("push", str(file), "--no-wait", **trusted)
    assert code == 0, text
    code, text = await tranche.command("jobs", "list", **here)
    assert code == 2, text
    assert "certificate" in text.lower()


async def test_files_that_cannot_be_used_are_named(tranche: Installation, folder: Path) -> None:
    one, other = make(folder, "one"), make(folder, "other")
    locked = make(folder, "locked", b"secret")
    for words, said in (
        (("--tls-cert", str(one.certificate)), "go together"),
        (("--tls-cert", str(one.certificate), "--tls-key", str(other.key)), "no certificate and its key"),
        (("--tls-cert", str(one.key), "--tls-key", str(one.key)), "no certificate and its key"),
        (("--tls-cert", str(one.certificate), "--tls-key", str(folder / "none")), "cannot be read"),
        (("--tls-cert", str(locked.certificate), "--tls-key", str(locked.key)), "passphrase"),
    ):
        code, text = await tranche.command("serve", "--port", str(tranche.port), *words)
        assert code == 2, text
        assert said in text
        assert "Traceback" not in text
