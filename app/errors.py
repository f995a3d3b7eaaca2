"""Errors of the domain. They know nothing of HTTP: `app.http.problems` alone maps them to a status.

The docstring of a class is its message to the user unless one is given.
"""

import inspect
from typing import ClassVar


class TrancheError(Exception):
    """An internal error occurred; it was logged with this request_id. Nothing was changed unless a job shows it."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        self.detail = detail or inspect.cleandoc(type(self).__doc__ or "")
        self.retry_after = retry_after
        """Seconds after which the same request may work; `None` where waiting does not help."""
        super().__init__(self.detail)


class SettingsError(TrancheError):
    """A setting has a value that cannot be used."""

    code = "SETTINGS"


class MigrationError(TrancheError):
    """The database could not be brought to this release's schema."""

    code = "MIGRATION"


class DatabaseUnavailable(TrancheError):
    """The database cannot be reached. Nothing was changed that was not acknowledged; send the request again."""

    code = "DATABASE_UNAVAILABLE"


class StorageFull(TrancheError):
    """The database has no disk space left, so nothing was stored. Once an operator has freed or added space,
    the same request with the same Idempotency-Key succeeds."""

    code = "STORAGE_FULL"


class Overloaded(TrancheError):
    """The service is overloaded. Send the same request again after the time given."""

    code = "OVERLOADED"


class QuotaExceeded(TrancheError):
    """A limit of this tenant or key is reached. Send the same request again after the time given."""

    code = "QUOTA_EXCEEDED"


class RateLimited(TrancheError):
    """A rate limit is used up. Send the same request again after the time given."""

    code = "RATE_LIMIT"

    def __init__(self, detail: str = "", *, retry_after: float, violated: list[str]) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.violated = violated
        """Names of the policies."""


class MalformedRequest(TrancheError):
    """The request cannot be read. Correct it where the detail says, and send it again."""

    code = "MALFORMED_REQUEST"


class InvalidHeader(TrancheError):
    """The columns of the file cannot be used; nothing of it was imported. Correct its header row, or rename columns
    with `map=`."""

    code = "INVALID_HEADER"


class TooLarge(TrancheError):
    """The request is larger than this route takes. Send it in parts."""

    code = "REQUEST_TOO_LARGE"


class KeyBusy(TrancheError):
    """The first request with this Idempotency-Key is still running; send this one again after the time given."""

    code = "IDEMPOTENCY_KEY_IN_USE"


class KeyReused(TrancheError):
    """This Idempotency-Key was used with another body or other options; use a new key for a new request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class KeyExpired(TrancheError):
    """The answer of this Idempotency-Key is no longer kept, and its work is not repeated; use a new key."""

    code = "IDEMPOTENCY_KEY_EXPIRED"


class NotFound(TrancheError):
    """There is nothing of this name or id, or it belongs to another tenant."""

    code = "NOT_FOUND"


class Unauthorized(TrancheError):
    """An API key is needed: `Authorization: Bearer trn_…`."""

    code = "UNAUTHORIZED"


class Forbidden(TrancheError):
    """The API key lacks the scope for this. Use one that has it; `GET /v1/keys` lists the scopes of each."""

    code = "FORBIDDEN"


class TenantDisabled(TrancheError):
    """This tenant is disabled. Accepted work is kept, and continues once the operator of the service enables
    the tenant."""

    code = "TENANT_DISABLED"


class Invalid(TrancheError):
    """A value cannot be used. The detail says which one, and what it may be."""

    code = "INVALID_PARAMETER"


class Conflict(TrancheError):
    """The request conflicts with the current state of the resource. Read it again before you decide."""

    code = "CONFLICT"


class JobNotCancelable(TrancheError):
    """Every item of this job is decided, so there is nothing left to cancel."""

    code = "JOB_NOT_CANCELABLE"


class JobNotUndoable(TrancheError):
    """This job changed nothing that could be undone, or it is still running."""

    code = "JOB_NOT_UNDOABLE"


class JobCanceled(TrancheError):
    """The job was canceled while its body arrived; nothing of it was applied. A new Idempotency-Key imports it anew."""

    code = "JOB_CANCELED"


class NoWorker(TrancheError):
    """No worker claimed the test, so it was withdrawn. Start one with `tranche worker` and send the request again."""

    code = "NO_WORKER"


class EndpointDisabled(TrancheError):
    """This webhook endpoint is disabled and receives nothing; set its state to active first."""

    code = "WEBHOOK_ENDPOINT_DISABLED"


class JobNotRetryable(TrancheError):
    """Items of this job are still being decided; retry it once it is syncing or finished."""

    code = "JOB_NOT_RETRYABLE"


class NothingToRetry(TrancheError):
    """No item of this job failed or waits at these destinations, so there is nothing to send again."""

    code = "NOTHING_TO_RETRY"


class OutcomesExpired(TrancheError):
    """This job ended so long ago that the outcomes of its items are no longer kept; its summary still is."""

    code = "OUTCOMES_EXPIRED"


class RecordErased(TrancheError):
    """This record was erased: nothing that was known of it is kept. An import of its id makes a new record."""

    code = "RECORD_ERASED"


class ClientGone(Exception):
    """The client closed the connection before its request was complete: nobody is left to answer."""
