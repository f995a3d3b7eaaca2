"""`python -m app.api > openapi/openapi.yaml`: the document with the default limits."""

import sys

from app.api.openapi.document import Documents
from app.api.routes import OPERATIONS
from app.settings import Settings

sys.stdout.buffer.write(Documents(OPERATIONS, Settings()).as_yaml())
