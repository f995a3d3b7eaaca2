"""Where the API is, and the client that asks it."""

import sys
from typing import Final

from app import settings
from app.cli.client.api_client import ApiClient
from app.cli.client.clock import Clock, Deadline
from app.cli.client.errors import UsageError
from app.cli.client.progress import clean
from app.errors import SettingsError

FIRST_CONTACT: Final = 5.0
"""Seconds after which an address is abandoned where nobody has answered at all."""
REQUEST_TIMEOUT: Final = 30.0
"""Seconds that a single question may take, attempts included."""


def open_api(url: str | None, key: str | None, seconds: float = REQUEST_TIMEOUT) -> ApiClient:
    """A client that asks for so many seconds; options outrank the environment.

    What makes something new is sent once, with 0 seconds: nobody could know which of two responses was the first. Its
    answer is waited for as long as that of any other question; the service itself may wait for it, as for the test of a
    destination.

    Raises:
        UsageError: an address or key is missing or cannot be used.
    """
    try:
        found = settings.load()
    except SettingsError as error:
        raise UsageError(error.detail) from error
    deadline = Deadline(Clock(), seconds)
    return ApiClient(
        url or found.url,
        key or found.api_key,
        deadline=deadline,
        notify=warn,
        first_contact=FIRST_CONTACT,
        least=None if seconds else REQUEST_TIMEOUT,
    )


def warn(text: str) -> None:
    print(clean(text), file=sys.stderr)
