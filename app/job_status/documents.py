"""The declaration of answers that show a job (`JobViews.reply`), for whoever starts or ends one."""

from __future__ import annotations

from typing import Final

from app.http.headers import JSON
from app.http.operation import Answer

CACHE: Final = "private, no-cache"
_CONTENT: Final = {JSON: {"$ref": "#/components/schemas/Job"}}


def job_answer(description: str, status: int = 200, *, headers: tuple[str, ...]) -> Answer:
    """The declaration of such an answer."""
    return Answer(description, status, headers=("ETag", *headers), cache=CACHE, content=_CONTENT)
