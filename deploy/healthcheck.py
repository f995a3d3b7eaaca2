"""`healthcheck.py PORT…`: exit 0 if one of these ports answers /health/live. Needs nothing but Python."""

import sys
from http.client import HTTPConnection, HTTPException


def lives(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


sys.exit(not any(lives(int(port)) for port in sys.argv[1:]))
