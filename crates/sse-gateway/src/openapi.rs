//! Describes each path in OpenAPI. [`crate::routes`] ties each description to its handler.
//!
//! Invariant: units, topics and windows come from `domain`, schemas from [`crate::schemas`], and
//! bounds from the parser. The API contract test of `cargo xtask ci` checks the rest against the
//! service.

use domain::{Metric, TimeUnit, Topic};
use openapi_kit::{answer, content, header, parameter, refusal, schema_of, text, unavailable};
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterIn};
use utoipa::openapi::schema::{AnyOfBuilder, OneOfBuilder};
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, InfoBuilder, KnownFormat, ObjectBuilder, RefOr, Required, Schema,
    SchemaFormat, Type,
};

use crate::query::{HEARTBEAT_SECONDS_MAX, LAST_MAX, PageLimits};
use crate::schemas::{Bucket, HistoryPage, Status, TopicWindow, topic_name};

const DESCRIPTION: &str = "\
Counts how many items are created and how many transfers occur. Live counts are streamed as \
server-sent events. Counts of any period can be queried as history.

`Accept` selects the media type: the one with the highest quality, then the one that is named most \
precisely. `text/event-stream` and `*/*` open a stream, which stays open until either side closes it. \
`application/json` and `text/csv` return the current counts once.

Errors are RFC 9457 problem details. A method that a path does not support gets a 405, and `Allow` \
lists the supported ones. Every response has an `X-Request-Id`. A request can set it, with up to 128 \
visible ASCII characters.";

const STREAM: &str = "\
A stream begins with a snapshot (or with a patch, if `Last-Event-ID` allows it) and a status. Before \
there are counts, it begins with the status alone. Each change is sent as a patch. Fast changes are \
combined into one patch. A status is sent when it changes, and as a heartbeat. A client that has \
applied all events up to an `id` holds exactly the counts of one snapshot of the database.

- `snapshot`: replaces the state with the newest buckets of the window, oldest first.
- `patch`: sets the absolute counts of the buckets that it names. Beyond `window` buckets, drop the \
oldest.
- `status`: whether the counts are live. It has no id.

`id` is opaque. To reconnect, wait for the time in `retry`, and send the last `id` as `Last-Event-ID`. \
Browsers do both automatically. Clients that cannot send headers may send it as the query parameter \
`lastEventId`, in any case; the header takes precedence.";

const PERIOD: &str = "\
Without `from` and `to`, this returns the live window, and `last`, `payload` and `heartbeat` apply. \
With either, it returns the buckets of a period, and `limit` applies. A period is not streamed: `*/*` \
means JSON. Buckets that never had an event are left out.";

pub(crate) fn info() -> InfoBuilder {
    InfoBuilder::new()
        .title("Newcycle sse-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
}

/// The counts of one topic: of the live window, or of a period.
pub(crate) fn topic(metric: Metric, limits: PageLimits) -> OperationBuilder {
    let units = TimeUnit::ALL.map(TimeUnit::as_str);
    let unit = text().enum_values(Some(units));
    let payload = text().enum_values(Some(["changes", "full"])).default(Some("changes".into()));
    let full = "For a stream. `full` sends the whole window after changes, at most once a second, \
                newest bucket first, as unnamed messages.";
    let from = "For a period: only buckets that start at this time or later. By default, from the first \
                one kept.";
    let to = "For a period: only buckets that start before this time. By default, to the last one.";
    let per_page = "For a period: the maximum number of buckets per page.";
    let event = AnyOfBuilder::new()
        .item(event("snapshot", schema_of::<TopicWindow>()))
        .item(event("patch", schema_of::<TopicWindow>()))
        .item(event("status", schema_of::<Status>()))
        .item(event("message", ArrayBuilder::new().items(schema_of::<Bucket>())));
    let summary = match metric {
        Metric::ItemCreation => "Counts of created items",
        Metric::Transfers => "Counts of transfers",
    };
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(limits.max.get()))
        .default(Some(limits.default.get().into()));
    let period = |name, description| parameter(ParameterIn::Query, name, time(), description);
    let json =
        OneOfBuilder::new().item(schema_of::<TopicWindow>()).item(schema_of::<HistoryPage>());
    let kept_since =
        "The unit keeps nothing from before `kept_since`. Start there, or use a longer unit.";
    let next =
        header(text(), "The next page of a period, as `rel=\"next\"`. The last page has none.");
    operation(metric.as_str(), summary, json, event, Some(next))
        .description(Some(PERIOD))
        .parameter(parameter(ParameterIn::Path, "unit", unit, "The length of the buckets."))
        .parameter(parameter(ParameterIn::Query, "payload", payload, full))
        .parameter(period("from", from))
        .parameter(period("to", to))
        .parameter(parameter(ParameterIn::Query, "limit", limit, per_page))
        .response("404", refusal("The unit is unknown."))
        .response("410", refusal(kept_since))
}

/// The live windows of several topics.
pub(crate) fn topics() -> OperationBuilder {
    let topics = ArrayBuilder::new()
        .items(topic_name())
        .min_items(Some(1))
        .max_items(Some(Topic::COUNT))
        .unique_items(true);
    let mut topics = parameter(
        ParameterIn::Query,
        "topic",
        topics,
        "The topics, in the order of the response: `?topic=item-creation/minute&topic=transfers/hour`.",
    );
    topics.required = Required::True;
    let windows = || ArrayBuilder::new().items(schema_of::<TopicWindow>());
    let event = AnyOfBuilder::new()
        .item(event("snapshot", windows()))
        .item(event("patch", windows()))
        .item(event("status", schema_of::<Status>()));
    operation("statistics", "Counts of several topics over one connection", windows(), event, None)
        .parameter(topics)
}

/// The common part of all operations. `window` is the schema of a single response, `event` that of
/// the events of a stream.
fn operation(
    id: &str,
    summary: &str,
    window: impl Into<RefOr<Schema>>,
    event: AnyOfBuilder,
    link: Option<Header>,
) -> OperationBuilder {
    let last =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LAST_MAX));
    let last = parameter(ParameterIn::Query, "last", last, "Only this many of the newest buckets.");
    let heartbeat = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(HEARTBEAT_SECONDS_MAX));
    let beats = "For a stream: the maximum number of seconds between two status events while the counts are live.";
    let heartbeat = parameter(ParameterIn::Query, "heartbeat", heartbeat, beats);
    let stream = ContentBuilder::new().description(Some(STREAM)).item_schema(Some(event));
    let csv = text().description(Some(
        "A header line `topic,time,count`, then one line per bucket, oldest first.",
    ));
    let counts = answer("The current counts. A stream also sends each later change.").header(
        "Cache-Control",
        header(
            text().enum_values(Some(["no-store", "no-store, no-transform"])),
            "Counts change, so they must not be cached. A stream must not be compressed on its way, \
             because that would hold events back.",
        ),
    );
    let counts = match link {
        Some(link) => counts.header("Link", link),
        None => counts,
    };
    let counts = counts
        .content("text/event-stream", stream)
        .content("application/json", content(window))
        .content("text/csv", content(csv));
    OperationBuilder::new()
        .operation_id(Some(id.replace('-', "_")))
        .tag("statistics")
        .summary(Some(summary))
        .parameter(last)
        .parameter(heartbeat)
        .parameter(last_event_id(ParameterIn::Header, "Last-Event-ID"))
        .parameter(last_event_id(ParameterIn::Query, "lastEventId"))
        .response("200", counts)
        .response("400", refusal("A query parameter is unknown, not valid, or repeated."))
        .response("406", refusal("The path offers none of the media types in `Accept`."))
        .response(
            "503",
            unavailable(
                "There are no counts yet, no upstream answers, or the maximum number of streams is open.",
            ),
        )
}

fn last_event_id(place: ParameterIn, name: &str) -> Parameter {
    let description = "For a stream: the `id` of the last event that the client has applied, of a \
                       request for the same topics, `last` and `payload`. Any other value gets a \
                       snapshot.";
    parameter(place, name, text(), description)
}

/// An event whose data is JSON. Readers call an event without a name `message`.
fn event(name: &str, data: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    let data = text().content_media_type("application/json").content_schema(Some(data));
    let event = ObjectBuilder::new()
        .property("event", text().enum_values(Some([name])))
        .property("id", text().description(Some("Opaque.")))
        .property("data", data)
        .required("data");
    if name == "message" { event } else { event.required("event") }
}

/// An RFC 3339 time.
fn time() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}
