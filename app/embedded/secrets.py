"""Secrets that are made once and then kept in a file only their owner can read."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from app.embedded.errors import EngineError


def load_or_create(path: Path, nbytes: int = 32) -> bytes:
    """The secret kept in `path`, made at random (mode 0600) when there is none yet.

    Any number of processes may call this at once and all get the same bytes: the secret is written to a
    temporary file and linked into place, and a link never replaces a file that is there already.

    Returns:
        Exactly `nbytes` raw bytes.

    Raises:
        EngineError: the file is there, but holds something else.
        OSError: the folder is missing or may not be written.
    """
    while True:
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError), _written_beside(path, secrets.token_bytes(nbytes)) as made:
                os.link(made, path)
            continue
        if len(secret) != nbytes:
            raise EngineError(f"{path} holds {len(secret)} bytes instead of {nbytes}: restore it from a backup.")
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return secret


def replace_private(path: Path, content: bytes) -> None:
    """Put `content` into `path` (mode 0600): a reader sees the old file or the new one, never half of it."""
    with _written_beside(path, content) as temporary:
        temporary.replace(path)


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A file in the same folder, to be put in the place of `path`; what was done is durable afterwards."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_private(temporary, content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600 to the disk; `FileExistsError` when it is there already."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; without it a crash may lose a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
