"""Answers that show a job. The status of jobs implements them; whoever starts or ends a job uses them."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import Any, Final

from app.http.headers import JSON
from app.http.operation import Answer, Reply

CACHE: Final = "private, no-cache"
_CONTENT: Final = {JSON: {"$ref": "#/components/schemas/Job"}}


class JobDocuments(ABC):
    @abstractmethod
    async def reply(self, tenant_id: int, job_id: uuid.UUID, status: int = 200) -> Reply[Any]:
        """The job in its current state; with 202 also where it is, and when to poll it.

        Raises:
            NotFound: the tenant has no such job.
        """


def job_answer(description: str, status: int = 200, *, headers: tuple[str, ...]) -> Answer:
    """The declaration of such an answer."""
    return Answer(description, status, headers=("ETag", *headers), cache=CACHE, content=_CONTENT)
