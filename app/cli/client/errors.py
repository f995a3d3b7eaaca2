"""Why a command of the client ends early. The exit code belongs to the error, the words to whoever raises it."""

from __future__ import annotations

from typing import ClassVar

from app.errors import TrancheError


class ClientError(TrancheError):
    """The command cannot go on."""

    code = "CLIENT"
    exit_code: ClassVar[int] = 2


class UsageError(ClientError):
    """The file or an option cannot be used."""

    code = "USAGE"


class RefusedError(ClientError):
    """The server refused the whole request: the key, the address or the request is wrong."""

    code = "REFUSED"


class TooLargeError(RefusedError):
    """The server refused the request for its size (413)."""

    code = "TOO_LARGE"


class NotFoundError(RefusedError):
    """There is nothing at the address (404)."""

    code = "NOT_FOUND"


class BrokenDownload(RefusedError):
    """A download did not come to its end."""

    code = "BROKEN"


class CanceledError(ClientError):
    """Somebody canceled the job while its file was sent."""

    code = "CANCELED"
    exit_code: ClassVar[int] = 1


class JobOver(ClientError):
    """The job ended without deciding every row: it was canceled, or it failed."""

    code = "OVER"

    def __init__(self, detail: str, *, exit_status: int, not_processed: int) -> None:
        super().__init__(detail)
        self.exit_status = exit_status
        self.not_processed = not_processed


class TimedOutError(ClientError):
    """The time to wait is over and work is left."""

    code = "TIMED_OUT"
    exit_code = 3
