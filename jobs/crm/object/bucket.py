"""Signed calls to one bucket."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Unpack
from urllib.parse import unquote, urlsplit

from yarl import URL

from app.destinations.credentials import BasicCredentials, Credentials
from app.destinations.kinds import ObjectOptions
from jobs.crm.exchange import Answer, Body, Connection, NoAnswer
from jobs.crm.object.answers import read
from jobs.crm.object.files import Content
from jobs.crm.object.signature import Key, encode_path, encode_query, sign
from jobs.crm.port import Access, Authorization, Authorizer, Headers

_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class Unshown:
    """Credentials that sign calls, and are never shown (`jobs.crm.port.Authorizer`)."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.credentials: Credentials = authorizer.credentials
        self.secrets: Sequence[str] = authorizer.secrets

    async def authorize(self) -> Authorization:
        """See `jobs.crm.port.Authorizer`."""
        return Authorization()

    async def renew(self, used: Authorization) -> None:
        """See `jobs.crm.port.Authorizer`."""


class Bucket:
    """Raises `ValueError`: base URL or credentials cannot be used."""

    def __init__(self, options: ObjectOptions, now: Callable[[], datetime], **access: Unpack[Access]) -> None:
        credentials = access["authorizer"].credentials
        if not isinstance(credentials, BasicCredentials):
            raise ValueError("the credentials must be an access key and its secret (basic)")
        if not (credentials.username.isascii() and credentials.username.isprintable()):
            raise ValueError("the access key must be printable ASCII")
        access["authorizer"] = Unshown(access["authorizer"])
        self._connection = Connection(**access)
        parts = urlsplit(self._connection.base_url)
        bucket = f"/{options.bucket}" if options.bucket is not None else ""
        self._root = encode_path(unquote(parts.path)) + bucket
        self._path = bucket
        self._host = URL(self._connection.base_url).host_port_subcomponent or ""
        self._key = Key(credentials.username, credentials.password, options.region)
        self._now = now
        self._own = {
            name: value
            for name, value in (
                ("X-Amz-Storage-Class", options.storage_class),
                ("X-Amz-Server-Side-Encryption", options.encryption),
            )
            if value is not None
        }

    def left(self, spent: float) -> float | None:
        """See `jobs.crm.exchange.Connection.left`."""
        return self._connection.left(spent)

    async def put(self, content: Content, identity: Headers, *, seconds: float | None = None) -> Answer | NoAnswer:
        """Store an object whole, or not at all."""
        own = {**self._own, "Content-Type": content.media_type, "Content-MD5": content.md5}
        body = Body(content.body, content.media_type)
        return await self._call("PUT", f"/{content.key}", {}, own, body, content.sha256, identity, seconds)

    async def delete(self, key: str, identity: Headers) -> Answer | NoAnswer:
        return await self._call("DELETE", f"/{key}", {}, {}, None, _EMPTY, identity, None)

    async def list_one(self, prefix: str, identity: Headers) -> Answer | NoAnswer:
        """The first object whose name begins with `prefix`."""
        query = {"list-type": "2", "max-keys": "1", "prefix": prefix}
        return await self._call("GET", "" if self._root else "/", query, {}, None, _EMPTY, identity, None)

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        own: dict[str, str],
        body: Body | None,
        content_hash: str,
        identity: Headers,
        seconds: float | None,
    ) -> Answer | NoAnswer:
        encoded, asked = encode_path(path), encode_query(query)
        signed = sign(
            method, self._root + encoded, asked, {"Host": self._host, **own}, content_hash, self._key, self._now()
        )
        place = self._path + encoded + (f"?{asked}" if asked else "")
        return read(await self._connection.call(method, place, body, identity, headers=signed, seconds=seconds))
