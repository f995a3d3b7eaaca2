"""Two CRMs whose access tokens live for seconds, three workers of which one is killed: `python -m
tests.acceptance.expiring_tokens` (ten minutes; `--seconds` and `--records` make less of it).

HubSpot replaces the refresh token at each use. Salesforce does not say how long a token lives, so that only a 401 shows
that it has ended. Records are imported at a steady rate and go to both. Prints what the token endpoints were asked, and
exits with 1 unless every record arrived at both, nothing is in doubt or dead, and no more tokens were asked for than
expired, and two.
"""

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.acceptance.harness import free_port, until
from tests.bench import rig
from tests.bench.delivery.site import Site, opened

WORKERS = 3
BATCH = 100


class Seen(msgspec.Struct, frozen=True):
    """What became of a run at one CRM."""

    destination: str
    states: dict[str, int]
    issued: int
    refused: int
    expired_calls: int
    """That were answered with 401."""
    expiries: int
    """Tokens that can have ended in the time of the run."""

    def holds(self, records: int) -> bool:
        return self.states == {"ok": records} and self.issued <= self.expiries + 2 and not self.refused


class Crm:
    def __init__(self, site: Site, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self._site = site

    async def control(self, method: str, path: str, body: object = None) -> Any:
        async with self._site.session.request(method, f"{self.url}/__sandbox__/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


async def start_crm(site: Site, kind: str) -> Crm:
    port = free_port()
    part = site.tranche.start(f"sandbox-{kind}", "sandbox-crm", "--kind", kind, "--field", "*", "--port", str(port))
    crm = Crm(site, kind, f"http://127.0.0.1:{port}")

    async def answers() -> bool:
        assert part.child.returncode is None, part.text()
        try:
            return bool(await crm.control("GET", "health"))
        except aiohttp.ClientError:
            return False

    await until(answers)
    return crm


async def connect(site: Site, crm: Crm, lifetime: float) -> None:
    if crm.kind == "hubspot":
        await crm.control("PUT", "oauth", {"refresh_token": "first", "rotates": True, "lifetime": lifetime})
        credentials = {
            "type": "oauth2_refresh_token", "token_url": f"{crm.url}/oauth/v1/token", "client_id": "app",
            "client_secret": "app-secret", "refresh_token": "first",
        }  # fmt: skip
    else:
        key = rsa.generate_private_key(65537, 2048)
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        client = {"username": "ada@example.com", "public_key": public.decode(), "says_lifetime": False}
        await crm.control("PUT", "oauth", client | {"lifetime": lifetime})
        credentials = {
            "type": "salesforce_jwt", "login_url": crm.url, "client_id": "app", "username": "ada@example.com",
            "private_key": private.decode(),
        }  # fmt: skip
    new = {"name": crm.kind, "kind": crm.kind, "base_url": crm.url, "credentials": credentials}
    answer = await site.tranche.ask("POST", "/v1/destinations", json=new)
    assert answer.status == 201, answer


async def measure(site: Site, records: int, seconds: float, lifetime: float) -> list[Seen]:
    await site.tranche.start_api()
    await site.tranche.ask("DELETE", "/v1/destinations/hubspot")
    crms = [await start_crm(site, kind) for kind in ("hubspot", "salesforce")]
    for crm in crms:
        await connect(site, crm, lifetime)
    workers = await asyncio.gather(*(site.tranche.start_worker() for _ in range(WORKERS)))
    ids = rig.record_ids(records)
    began, killed = time.monotonic(), False
    for start in range(0, records, BATCH):
        await asyncio.sleep(began + seconds * start / records - time.monotonic())
        await site.post(ids[start : start + BATCH])
        if not killed and start >= records / 2:
            await workers[0].child.kill()
            killed = True
    await asyncio.gather(*(site.delivered(crm.kind, 120) for crm in crms))
    expiries = math.ceil((time.monotonic() - began) / lifetime)
    found = []
    for crm in crms:
        did = await crm.control("GET", "oauth")
        states = await site.states(crm.kind)
        found.append(Seen(crm.kind, states, did["issued"], did["refused"], did["expired_calls"], expiries))
    return found


def show(found: list[Seen]) -> None:
    print("| destination | items by state | tokens expired | asked for | refused | calls answered 401 |")
    print("|---|---|--:|--:|--:|--:|")
    for one in found:
        states = " ".join(f"{count:,} {state}" for state, count in one.states.items())
        counts = f"{one.expiries} | {one.issued} | {one.refused} | {one.expired_calls}"
        print(f"| {one.destination} | {states} | {counts} |")


async def main(records: int, seconds: float, lifetime: float) -> int:
    with tempfile.TemporaryDirectory(prefix="tranche-tokens-") as name:
        os.chmod(name, 0o711)  # as root the engines run as somebody else
        async with opened(Path(name)) as site:
            found = await measure(site, records, seconds, lifetime)
            site.tranche.quiet = True
    show(found)
    return 0 if all(one.holds(records) for one in found) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--lifetime", type=float, default=20.0, help="of an access token, in seconds")
    arguments = parser.parse_args()
    sys.exit(uvloop.run(main(arguments.records, arguments.seconds, arguments.lifetime)))
