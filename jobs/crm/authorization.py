"""What is shown at each call, where the credentials are all that it takes."""

import base64
from collections.abc import Sequence

from app.destinations.credentials import (
    BasicCredentials,
    Credentials,
    HeaderCredentials,
    NoCredentials,
    Stored,
    TokenCredentials,
    is_sendable,
    secrets_of,
)
from jobs.crm.port import Authorization


class FixedAuthorizer:
    """A token, a user, header fields or nothing (`jobs.crm.port.Authorizer`)."""

    def __init__(self, credentials: TokenCredentials | BasicCredentials | HeaderCredentials | NoCredentials) -> None:
        """Raises `ValueError`: the token cannot be sent."""
        self.credentials: Credentials = credentials
        self.secrets: Sequence[str] = secrets_of(Stored(credentials=credentials))
        match credentials:
            case TokenCredentials(token=token):
                if not is_sendable(token):
                    raise ValueError("the token must be printable ASCII without spaces")
                self._shown = Authorization(token=token)
            case BasicCredentials(username=username, password=password):
                pair = base64.b64encode(f"{username}:{password}".encode()).decode()
                self.secrets = [*self.secrets, pair]
                self._shown = Authorization(fields={"Authorization": f"Basic {pair}"})
            case HeaderCredentials(headers=headers):
                self._shown = Authorization(fields=headers)
            case NoCredentials():
                self._shown = Authorization()

    async def authorize(self) -> Authorization:
        """See `jobs.crm.port.Authorizer`."""
        return self._shown

    async def renew(self, used: Authorization) -> None:
        """See `jobs.crm.port.Authorizer`."""
