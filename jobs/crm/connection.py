"""One tenant's way to one CRM: where it is, who calls, and how long a call may take."""

from typing import Final

import aiohttp
from yarl import URL

from jobs.crm.exchange import Answer, NoAnswer, identify, send
from jobs.crm.port import Headers, Timeouts

SCHEMES: Final = ("http://", "https://")


class Connection:
    """Makes the calls of an adapter. Raises `ValueError`: token or base URL cannot be used."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        timeouts: Timeouts,
        header: str = "Authorization",
        scheme: str = "Bearer",
    ) -> None:
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("the token must be printable ASCII without spaces")
        if not base_url.startswith(SCHEMES):
            raise ValueError("the base URL must start with https:// or http://")
        self.base_url = base_url.rstrip("/")
        self.token = token
        self.timeouts = timeouts
        self._session = session
        self._credentials = {header: f"{scheme} {token}" if scheme else token}

    async def call(
        self,
        method: str,
        path: str,
        payload: object,
        identity: Headers,
        *,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
    ) -> Answer | NoAnswer:
        """One exchange. `path` is encoded already; `seconds` is what is left of the total timeout, if not all."""
        timeouts = self.timeouts
        if seconds is not None:
            timeouts = Timeouts(min(timeouts.connect, seconds), min(timeouts.total, seconds))
        return await send(
            self._session,
            method,
            URL(self.base_url + path, encoded=True) if "?" in path else self.base_url + path,
            payload=payload,
            headers={**identify(identity), **(headers or {}), **self._credentials},
            timeouts=timeouts,
        )
