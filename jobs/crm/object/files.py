"""What the files hold, and how they are called.

A file has a line for each record, in its version and with all that imports have named of it:

    {"id":"c1","version":3,"type":"contacts","deleted":false,"email":"ada@example.org","attributes":{"plan":"gold"}}
    {"id":"c2","version":2,"type":"contacts","deleted":true}

Its name is that of the event and the beginning of the SHA-256 of its bytes, so a name never gets other bytes.
"""

import base64
import gzip
import hashlib
from typing import Any, Final

import msgspec

from app.destinations.kinds import ObjectOptions
from app.resources.declaration import Resource
from jobs.crm.mapping import FieldMap
from jobs.crm.port import SentRecord

MOST_BYTES: Final = 32_000_000
"""Of the lines of a file of several records, before they are compressed."""
MANIFESTS: Final = "_manifests"
_LEVEL: Final = 6
"""Of the compression."""
_encode: Final = msgspec.json.Encoder(decimal_format="number").encode


class Content(msgspec.Struct, frozen=True):
    """An object that is to be stored."""

    key: str
    """Its name in the bucket."""
    body: bytes
    media_type: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def md5(self) -> str:
        """As `Content-MD5` has it, without which a bucket with Object Lock takes nothing."""
        return base64.b64encode(hashlib.md5(self.body, usedforsecurity=False).digest()).decode()


class Files:
    """Of one type of records, by the options of a destination."""

    def __init__(self, options: ObjectOptions, resource: Resource) -> None:
        self._type = resource.name
        self.folder = options.path.replace("{type}", resource.name)
        self._compresses = options.compression == "gzip"
        self._named = options.fields_of(resource.name)
        self._map = FieldMap(options, resource, key="id", name_of=lambda _: None)

    def make(self, records: list[SentRecord], event_id: str) -> tuple[Content, Content] | None:
        """A file and its manifest; `None`: several records are too large for one."""
        lines, size = [], 0
        for record in records:
            line = _encode(self._line(record))
            size += len(line) + 1
            if size > MOST_BYTES and len(records) > 1:
                return None
            lines.append(line)
        text = b"\n".join([*lines, b""])
        ending, media_type = (".ndjson.gz", "application/gzip") if self._compresses else (".ndjson", _NDJSON)
        body = gzip.compress(text, _LEVEL, mtime=0) if self._compresses else text
        sha256 = hashlib.sha256(body).hexdigest()
        name = f"{event_id}-{sha256[:16]}"
        file = Content(f"{self.folder}/{name}{ending}", body, media_type)
        manifest = {
            "file": file.key,
            "bytes": len(body),
            "sha256": sha256,
            "event_id": event_id,
            "type": self._type,
            "records": len(records),
            "ids": [record.record_id for record in records],
            "versions": [record.version for record in records],
        }
        return file, Content(f"{self.folder}/{MANIFESTS}/{name}.json", _encode(manifest), "application/json")

    def _line(self, record: SentRecord) -> dict[str, Any]:
        """In an order that the same record always has."""
        line = {"id": record.record_id, "version": record.version, "type": self._type, "deleted": record.deleted}
        if record.deleted:
            return line
        values = self._map.sources(record)
        del values["id"]
        line |= {name: values[name] for name in sorted(values)}
        rest = record.attributes
        attributes = {name: rest[name] for name in sorted(rest) if name not in self._named}
        return line | {"attributes": attributes} if attributes else line


_NDJSON: Final = "application/x-ndjson"
