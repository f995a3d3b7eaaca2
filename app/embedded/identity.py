"""Whom the engines run as.

PostgreSQL refuses to run as root, and Valkey has no need to. As root both become the owner of the data
that is there, or `nobody` for new data; anybody else runs them as himself.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EngineError


@dataclass(frozen=True)
class Identity:
    """A system user and its group."""

    uid: int
    gid: int


def choose(data: Path, user: str) -> Identity | None:
    """Whom to become; `None` when this process is not root.

    Args:
        data: the data folder of an engine, which need not exist yet.
        user: the system user who gets a new one.

    Raises:
        EngineError: there is no such user, or it is root.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Identity(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise EngineError(
            f"root cannot run PostgreSQL, and there is no user {user!r} to run it: add one"
        ) from None
    if entry.pw_uid == 0:
        raise EngineError("root cannot run PostgreSQL: name an unprivileged user")
    return Identity(entry.pw_uid, entry.pw_gid)


def give(folder: Path, identity: Identity | None) -> None:
    """Make the user the owner of a folder and all it holds, and of nothing above it."""
    if identity is None:
        return
    if (found := folder.lstat()).st_uid == identity.uid and found.st_gid == identity.gid:
        return
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            os.chown(Path(parent, name), identity.uid, identity.gid, follow_symlinks=False)
    os.chown(folder, identity.uid, identity.gid)  # last: it marks the whole as done


def require_name(identity: Identity | None) -> None:
    """PostgreSQL looks the user's name up to make a cluster; a container that runs under a bare number has none.

    Raises:
        EngineError: there is no such name.
    """
    uid = os.geteuid() if identity is None else identity.uid
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EngineError(
            f"user {uid} has no name here, and PostgreSQL wants one: add it to /etc/passwd, or start as another user"
        ) from None
