"""`python -m app.http.openapi > openapi/openapi.yaml`: the document with the default limits."""

from __future__ import annotations

import sys

from app.http.openapi.document import Documents
from app.http.routes import OPERATIONS
from app.settings import Settings

sys.stdout.buffer.write(Documents(OPERATIONS, Settings()).as_yaml())
