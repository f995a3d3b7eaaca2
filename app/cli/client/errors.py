"""Why a command of the client ends early. The exit code belongs to the error, the words to whoever raises it."""

from typing import ClassVar

from app.errors import TrancheError


class ClientError(TrancheError):
    """The command cannot go on."""

    exit_code: ClassVar[int] = 2


class UsageError(ClientError):
    """The file or an option cannot be used."""


class RefusedError(ClientError):
    """The server refused the whole request: the key, the address or the request is wrong."""


class NotFoundError(RefusedError):
    """There is nothing at the address (404)."""


class BrokenDownload(RefusedError):
    """A download did not come to its end."""


class CanceledError(ClientError):
    """Somebody canceled the job while its file was sent."""

    exit_code: ClassVar[int] = 1


class TimedOutError(ClientError):
    """The time to wait is over and work is left."""

    exit_code = 3
