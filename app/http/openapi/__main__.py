"""`python -m app.http.openapi > openapi/openapi.yaml`: the document with the default limits."""

from __future__ import annotations

import sys

from app.http.openapi import as_yaml
from app.settings import Settings

sys.stdout.buffer.write(as_yaml(Settings()))
