"""Whom the engines run as.

PostgreSQL refuses to run as root, and Valkey has no need to. As root both become the owner of the data that is
there, or a system user of their own for new data and for data of `nobody`, whose other processes could read it; anybody
else runs them as himself.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from app.embedded.errors import EngineError

log = structlog.get_logger()

SHARED: Final = "nobody"
"""There everywhere, and no user of our own: good enough for data that is thrown away."""


@dataclass(frozen=True)
class Identity:
    """A system user and its group."""

    uid: int
    gid: int


def ensure(user: str) -> str:
    """The system user who is to run the engines of root: `user`, made when there is none, or else `nobody`, with a
    warning that says why."""
    if os.geteuid() != 0 or _exists(user):
        return user
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    reason = "there is no useradd"
    if program is not None:
        options = ["--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent"]
        try:
            done = subprocess.run(  # noqa: S603 - a program of the system, and a name after the options
                [program, *options, "--shell=/usr/sbin/nologin", "--", user],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            reason = done.stderr.strip() or f"useradd ended with {done.returncode}"
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
        if _exists(user):  # made by us, or by somebody at the same time
            log.info("engine_user_made", user=user)
            return user
    log.warning(
        "engine_user_missing",
        user=user,
        instead=SHARED,
        reason=reason,
        remedy=f"processes of {SHARED} can read the engines' files: add the user, or start as an ordinary one",
    )
    return SHARED


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


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
    shared = pwd.getpwnam(SHARED).pw_uid if _exists(SHARED) else 0
    if data.exists() and (owner := data.stat()).st_uid not in (0, shared):
        return Identity(owner.st_uid, owner.st_gid)
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise EngineError(f"root cannot run PostgreSQL, and there is no user {user!r} to run it: add one") from None
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
