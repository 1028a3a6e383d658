"""Extends schemathesis with what is particular to these services."""

import json

import schemathesis

REFERENCES = {"base_item_id", "item_id", "owner_id", "to"}
TIMES = {"created_at", "timestamp"}


@schemathesis.serializer("application/x-ndjson")
def write_lines(_context, value):
    """Writes the array that schemathesis generates for such a body, one line per element.

    Any other value becomes a line that is invalid.
    """
    lines = value if isinstance(value, list) else [[value]]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@schemathesis.check
def refused_for_what_a_schema_cannot_say(_context, response, case):
    """A valid request is refused only because of existing rows, or because of the current time."""
    if response.status_code != 422 or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    for error in problem.get("errors", [problem]):
        field, detail = error.get("field"), error["detail"]
        unknown = field in REFERENCES and "there is no such row" in detail
        taken = field == "id" and "with other content" in detail
        time = field in TIMES and ("ahead of the service's clock" in detail or "years 1 to 9999" in detail)
        assert unknown or taken or time, f"a request that the description allows was refused: {error}"
