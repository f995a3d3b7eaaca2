"""A receiver of Tranche's webhooks: verifies each, does its work once, answers at once. Standard library alone.

    WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py --port 9000

Behind https:// in production. For a changeover WEBHOOK_SECRET may hold both secrets, separated by a space.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

TOLERANCE = 300  # seconds; an old message that somebody recorded must not be sent again
LARGEST = 1_000_000  # bytes


def is_genuine(secrets: list[str], headers: dict[str, str], body: bytes, now: float) -> bool:
    """Whether one of the signatures was made with one of our secrets, a short time ago."""
    event_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(now - int(at)) > TOLERANCE:
        return False
    signed = f"{event_id}.{at}.".encode() + body
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        ours = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        for theirs in headers.get("webhook-signature", "").split(" "):
            if hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "replace")):
                return True
    return False


class Receiver(BaseHTTPRequestHandler):
    secrets: list[str]
    database: sqlite3.Connection

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if length > LARGEST:
            return self.answer(413)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not is_genuine(self.secrets, headers, body, time.time()):
            return self.answer(401)
        with self.database:  # one transaction: what was seen and what was done are one thing
            seen = self.database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [headers["webhook-id"]])
            if seen.rowcount:
                self.handle_event(json.loads(body))
        return self.answer(204)  # also for a repetition: it has arrived

    def handle_event(self, event: dict) -> None:
        """Put it on a queue of your own if it takes long: Tranche waits 3 seconds for the answer."""
        print(event["type"], json.dumps(event["data"]), flush=True)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--seen", default="seen.sqlite", help="event ids that were handled (a file)")
    options = parser.parse_args()
    Receiver.secrets = os.environ["WEBHOOK_SECRET"].split()
    Receiver.database = sqlite3.connect(options.seen)
    Receiver.database.execute("CREATE TABLE IF NOT EXISTS seen (event_id TEXT PRIMARY KEY)")
    HTTPServer(("127.0.0.1", options.port), Receiver).serve_forever()
