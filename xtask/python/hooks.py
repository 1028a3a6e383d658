"""What schemathesis does not know of these services by itself."""

import json

import schemathesis

REFERENCES = {"base_item_id", "item_id", "owner_id", "to"}
TIMES = {"created_at", "timestamp"}


@schemathesis.serializer("application/x-ndjson")
def write_lines(_context, value):
    """Writes the array that schemathesis makes for such a body as one line for each element.

    What is no array cannot be written so: it is sent as a line that none may be.
    """
    lines = value if isinstance(value, list) else [[value]]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@schemathesis.check
def refused_for_what_a_schema_cannot_say(_context, response, case):
    """A request that the description allows is refused only for the rows that there are, or for the time it is."""
    if response.status_code != 422 or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    for error in problem.get("errors", [problem]):
        field, detail = error.get("field"), error["detail"]
        unknown = field in REFERENCES and "there is no such row" in detail
        taken = field == "id" and "with other content" in detail
        time = field in TIMES and ("ahead of the service's clock" in detail or "years 1 to 9999" in detail)
        assert unknown or taken or time, f"the description allows what was refused: {error}"
