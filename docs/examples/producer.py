"""Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.

Usage: python3 producer.py http://127.0.0.1:8080 (Python 3.9 or newer, nothing else)
"""

import http.client
import json
import random
import secrets
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

TIMEOUT_SECONDS = 30
GIVE_UP_SECONDS = 300


def new_id() -> str:
    """A UUIDv7 (RFC 9562): the milliseconds since 1970, the version, and random bits around the variant."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


class Refused(Exception):
    """The request is wrong, and repeating it will not help."""


class Producer:
    def __init__(self, url: str) -> None:
        self.url = url

    def create(self, path: str, row: dict) -> None:
        """Posts one row, which must have an id. 201: stored; 200: it was stored already."""
        status, answer = self.post(path, "application/json", json.dumps(row))
        if status not in (200, 201):
            raise Refused(f"POST {path}: {status}: {answer.get('detail')}")

    def upload(self, path: str, rows: list[dict]) -> list[dict]:
        """Posts many rows, which must have ids. Returns which lines were rejected, and why."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        status, answer = self.post(path, "application/x-ndjson", lines)
        if status == 200:
            return []
        if "errors" in answer:
            return answer["errors"]
        raise Refused(f"POST {path}: {status}: {answer.get('detail')}")

    def post(self, path: str, content_type: str, body: str) -> tuple[int, dict]:
        """Posts a body, and again for as long as no answer comes or one of 5xx. The body stays the same, and so do
        its ids: whether an attempt without an answer was carried out need not be known."""
        headers = {"content-type": content_type}
        request = urllib.request.Request(self.url + path, body.encode(), headers, method="POST")
        give_up, wait = time.monotonic() + GIVE_UP_SECONDS, 0.25
        while True:
            asked = None
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    return error.code, json.load(error)
                asked, trouble = error.headers.get("retry-after"), error
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                trouble = error
            if time.monotonic() > give_up:
                raise trouble
            # At least what the service asks for, else a random part of a wait that doubles, so that producers which
            # lost the service at the same moment do not come back at the same moment.
            jitter = random.uniform(0.5, 1)
            time.sleep(float(asked) * (0.5 + jitter) if asked else wait * jitter)
            wait = min(wait * 2, 15)


def main(url: str) -> None:
    producer = Producer(url)
    base_item, user, item, transfer = (new_id() for _ in range(4))
    now = datetime.now(timezone.utc).isoformat()
    producer.create("/base-items", {"id": base_item, "description": "Touring bicycle, refurbished"})
    producer.create("/users", {"id": user})
    producer.create("/items", {"id": item, "base_item_id": base_item, "created_at": now})
    producer.create("/transfers", {"id": transfer, "item_id": item, "owner_id": user})
    print(f"base item {base_item}\nuser {user}\nitem {item}\ntransfer {transfer}")

    # The second line names a base item that does not exist: it is rejected, the others are stored all the same.
    bases = [base_item, new_id(), base_item]
    rejected = producer.upload("/items", [{"id": new_id(), "base_item_id": base} for base in bases])
    for line in rejected:
        print(f"rejected, to be looked at: line {line['line']}: {line['detail']}")


if __name__ == "__main__":
    main(sys.argv[1])
