"""Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.

Usage: NEWCYCLE_KEY=… python3 producer.py http://127.0.0.1:8080 (Python 3.9 or newer, nothing else)
"""

import http.client
import json
import os
import random
import secrets
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

TIMEOUT_SECONDS = float(os.environ.get("TIMEOUT_SECONDS", "30"))
GIVE_UP_SECONDS = 300
# The answers that ask for another attempt, in addition to 5xx.
TRY_AGAIN = (408, 425, 429)


def new_id() -> str:
    """A UUIDv7 (RFC 9562): milliseconds since 1970, the version, random bits around the variant."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    bits |= 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


def problem_of(error: urllib.error.HTTPError) -> dict:
    """What is wrong. A proxy between this program and ingest-api may answer something else."""
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as unread:
        return {"detail": str(unread)}
    try:
        problem = json.loads(text)
    except ValueError:
        problem = None
    is_problem = isinstance(problem, dict) and "detail" in problem
    return problem if is_problem else {"detail": text[:200]}


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected would be repeated as a GET, whose 200 says nothing of the row."""

    def redirect_request(self, *_) -> None:
        return None


class Refused(Exception):
    """The request is wrong. Retrying it will not help."""


class Producer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.authorization = f"Bearer {os.environ['NEWCYCLE_KEY']}"
        self.opener = urllib.request.build_opener(NoRedirect)

    def create(self, path: str, row: dict) -> None:
        """Posts one row, which must have an id. 201: stored; 200: it was stored before."""
        status, answer = self.post(path, "application/json", json.dumps(row), "id")
        if status not in (200, 201):
            raise Refused(f"POST {path}: {status}: {answer.get('detail')}")

    def upload(self, path: str, rows: list[dict]) -> list[dict]:
        """Posts many rows, which must have ids. Returns which lines were rejected, and why."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        status, answer = self.post(path, "application/x-ndjson", lines, "accepted")
        if status == 200:
            return []
        # A proxy may have errors of its own.
        if status == 422 and "accepted" in answer:
            return answer["errors"]
        raise Refused(f"POST {path}: {status}: {answer.get('detail')}")

    def post(self, path: str, content_type: str, body: str, member: str) -> tuple[int, dict]:
        """Posts a body, and retries while there is no answer, or one that asks for that. The body
        and its ids stay the same, so an attempt without an answer may have been carried out.
        A 200 or 201 counts only if it has the member, which ingest-api sends: a proxy may answer
        something else."""
        headers = {"authorization": self.authorization, "content-type": content_type}
        request = urllib.request.Request(self.url + path, body.encode(), headers, method="POST")
        give_up = time.monotonic() + GIVE_UP_SECONDS
        wait = 0.25
        while True:
            asked = ""
            try:
                with self.opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                    answer = json.load(response)
                if isinstance(answer, dict) and member in answer:
                    return response.status, answer
                trouble = ValueError(f"POST {path}: the answer has no {member!r}")
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in TRY_AGAIN:
                    return error.code, problem_of(error)
                asked, trouble = error.headers.get("retry-after", ""), error
            except (OSError, http.client.HTTPException, ValueError) as error:
                trouble = error
            # The time in Retry-After, and a random part of a wait that doubles: producers that
            # lost the service at the same moment must not all return at once.
            pause = wait * random.uniform(0.5, 1) + (float(asked) if asked.isdecimal() else 0)
            if time.monotonic() + pause > give_up:
                raise trouble
            time.sleep(pause)
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

    # The second line names a base item that does not exist: it is rejected, the others are stored.
    bases = [base_item, new_id(), base_item]
    rejected = producer.upload("/items", [{"id": new_id(), "base_item_id": base} for base in bases])
    for line in rejected:
        print(f"rejected, for a person to look at: line {line['line']}: {line['detail']}")


if __name__ == "__main__":
    main(sys.argv[1])
