"""Remembers that a push has begun, so that one that was killed goes on under the same identity.

One small file for each (file content, address, options) in the user's state folder. It is locked while a push runs
and removed when the push ended; what is found unlocked therefore belongs to a run that never ended.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import msgspec

from app.cli.client.errors import UsageError

_READ_SIZE: Final = 1 << 20


class Entry(msgspec.Struct, frozen=True):
    run: str
    started: str
    file: str


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where journals live: `$XDG_STATE_HOME/tranche`, else `~/.local/state/tranche`."""
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return root / "tranche"


def fingerprint(path: str, facts: Mapping[str, object]) -> str:
    """SHA-256, in hex, over the file's content and everything that shapes the requests made of it."""
    digest = hashlib.sha256(msgspec.json.encode(facts, order="deterministic") + b"\0")
    with open(path, "rb") as stream:
        while chunk := stream.read(_READ_SIZE):
            digest.update(chunk)
    return digest.hexdigest()


class Journal:
    """The identity of one run; a context manager that holds the lock.

    Raises:
        UsageError: another push of the same file is running.
        OSError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, fingerprint: str, *, file: str, name: str | None = None, fresh: bool = False
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{fingerprint[:40]}.json"
        self._fd = _lock(self._path, file)
        try:
            found = None if fresh else self._read()
            self.resumed = found is not None
            self.entry = found or Entry(
                run=f"name:{name}" if name is not None else secrets.token_hex(16),
                started=datetime.now(UTC).isoformat(timespec="seconds"),
                file=file,
            )
            if found is None:
                self._write()
        except BaseException:
            os.close(self._fd)
            raise

    def _read(self) -> Entry | None:
        """What an earlier run left; a torn entry is none, for nothing is sent before it is safe on disk."""
        try:
            return msgspec.json.decode(os.pread(self._fd, 65_536, 0), type=Entry)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _write(self) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, msgspec.json.encode(self.entry), 0)
        os.fsync(self._fd)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def finish(self) -> None:
        """The run ended: pushing the same file once more is a new import."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _lock(path: Path, file: str) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file between our open and our lock.
            if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise UsageError(f"{file} is being pushed already by another process; wait for it to end") from None
        except FileNotFoundError:
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
