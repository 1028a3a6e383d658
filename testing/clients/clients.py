"""Python clients of streams, against a running stack at GATEWAY_URL and INGEST_URL.

NEWCYCLE_KEY is the key that they present.

They are used as their own documentation shows, with their own limits.
"""

import asyncio
import datetime
import json
import os
import time

import aiohttp
import httpx
import requests
import sseclient
from httpx_sse import connect_sse

GATEWAY = os.environ["GATEWAY_URL"]
INGEST = os.environ["INGEST_URL"]
KEY = {"authorization": f"Bearer {os.environ['NEWCYCLE_KEY']}"}
SECONDS = "/statistics/item-creation/second"


def fill_the_window() -> None:
    """One item in each of the 3,600 seconds of the largest window, which the gateway has then."""
    answer = requests.post(
        f"{INGEST}/base-items", json={"description": "of a client"}, headers=KEY, timeout=10
    )
    answer.raise_for_status()
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    lines = (
        json.dumps(
            {
                "base_item_id": answer.json()["id"],
                "created_at": (begin + datetime.timedelta(seconds=number)).isoformat(),
            }
        )
        for number in range(3_600)
    )
    headers = KEY | {"content-type": "application/x-ndjson"}
    answer = requests.post(
        f"{INGEST}/items", data="\n".join(lines), headers=headers, timeout=60
    )
    assert answer.json()["accepted"] == 3_600, answer.text
    # The upload is counted in several steps.
    deadline = time.monotonic() + 60
    while (size := window_size()) < 3_600:
        assert time.monotonic() < deadline, f"the window has {size} buckets"
        time.sleep(0.05)


def window_size() -> int:
    headers = KEY | {"accept": "application/json"}
    answer = requests.get(GATEWAY + SECONDS, headers=headers, timeout=10)
    answer.raise_for_status()
    return len(answer.json()["buckets"])


def check(events: list, client: str) -> None:
    """The first events have a name, data and, if they carry counts, an id."""
    for event in events:
        assert event.event in ("status", "snapshot", "patch"), f"{client}: {event}"
        assert json.loads(event.data), f"{client}: {event}"
    counts = [event for event in events if event.event != "status"]
    assert counts and counts[0].id, f"{client}: {events}"
    print(f"{client}: ok")


def with_httpx_sse() -> None:
    with httpx.Client(headers=KEY) as client, connect_sse(client, "GET", GATEWAY + SECONDS) as source:
        events = source.iter_sse()
        check([next(events), next(events)], "httpx-sse")


def with_sseclient() -> None:
    headers = KEY | {"accept": "text/event-stream"}
    answer = requests.get(GATEWAY + SECONDS, stream=True, headers=headers, timeout=10)
    events = sseclient.SSEClient(answer).events()
    check([next(events), next(events)], "sseclient-py")
    answer.close()


async def with_aiohttp() -> None:
    headers = KEY | {"accept": "text/event-stream"}
    async with aiohttp.ClientSession() as session:
        async with session.get(GATEWAY + SECONDS, headers=headers) as answer:
            size = 0
            seen_counts = False
            # Fails at a line that is longer than the client's limit.
            async for line in answer.content:
                size += len(line)
                seen_counts |= line.startswith(b"event: snapshot")
                if line == b"\n" and seen_counts:
                    break
    assert size > 100_000, f"a window of 3,600 buckets has more than {size} bytes"
    print("aiohttp: ok")


if __name__ == "__main__":
    fill_the_window()
    with_httpx_sse()
    with_sseclient()
    asyncio.run(with_aiohttp())
