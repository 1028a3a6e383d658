//! What is said of each path, beside the handler that answers it in [`crate::routes`].
//!
//! Invariant: units, topics and windows come from the domain. The words and statuses that remain are put to the test
//! by `cargo xtask test`, as its API contract.

use domain::{Metric, TimeUnit, Topic};
use openapi_kit::{answer, components, content, header, parameter, refusal, text, unavailable};
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterIn};
use utoipa::openapi::schema::{AnyOfBuilder, Components, OneOfBuilder, SchemaType};
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, InfoBuilder, KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr, Required,
    Schema, SchemaFormat, Type,
};

use crate::request::{HEARTBEAT_SECONDS_MAX, LAST_MAX};
use crate::routes::endpoints;
use crate::settings::HistorySettings;

const DESCRIPTION: &str = "\
Shows how many items are created and how many transfers occur, live, by server-sent events, and in any period.

`Accept` decides the form: `text/event-stream` or `*/*` is a stream that goes on until either side ends it; \
`application/json` and `text/csv` are answered once, with the counts of now.

Errors are RFC 9457 problem details. Methods that a path does not have are answered with 405, and `Allow` names those \
that it has. A request's `X-Request-Id` of up to 128 visible ASCII characters is taken over, and every answer has one.";

const STREAM: &str = "\
A stream begins with a snapshot, or with a patch where `Last-Event-ID` allows it, and a status; before there are \
counts, with the status alone. Then comes a patch on each change, one for several where they come fast, and a status \
on each change of it and as a heartbeat. Whoever has applied all events up to an `id` holds exactly the counts of one \
snapshot of the database.

- `snapshot`: replaces the state. Buckets are the newest of the window, oldest first.
- `patch`: sets the counts of the buckets that it names; counts are absolute. Beyond `window` buckets the oldest go.
- `status`: whether the counts are live. It has no id.

`id` is opaque. Send the last one as `Last-Event-ID` on reconnecting, as browsers do by themselves, after the time \
that `retry` tells.";

const PERIOD: &str = "\
Without `from` and `to`, the live window: `last` and `payload` are of it. With either, the buckets of a period, which are \
not streamed: `*/*` is then JSON, and `limit` bounds a page. Buckets in which nothing was ever counted are left out.";

/// The description of all paths.
#[must_use]
pub fn document(limits: &HistorySettings) -> OpenApi {
    let info = InfoBuilder::new()
        .title("Newcycle sse-gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION));
    openapi_kit::describe(info, endpoints(limits), schemas())
}

/// The counts of one topic: of its live window, or of a period.
pub(crate) fn one(metric: Metric, limits: &HistorySettings) -> OperationBuilder {
    let units = TimeUnit::ALL.map(TimeUnit::as_str);
    let unit = text().enum_values(Some(units));
    let payload = text().enum_values(Some(["changes", "full"])).default(Some("changes".into()));
    let full = "Of a stream: `full` sends the whole window on each change, newest first, as messages without a name.";
    let event = AnyOfBuilder::new()
        .item(event("snapshot", named("TopicWindow")))
        .item(event("patch", named("TopicWindow")))
        .item(event("status", named("Status")))
        .item(event("message", ArrayBuilder::new().items(named("Bucket"))));
    let what = match metric {
        Metric::ItemCreation => "Counts of created items",
        Metric::Transfers => "Counts of transfers",
    };
    let (least, most) = (limits.page_buckets_default.get(), limits.page_buckets_max.get());
    let limit = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(most))
        .default(Some(least.into()));
    let period = |name, description| parameter(ParameterIn::Query, name, time(), description);
    let json = OneOfBuilder::new().item(named("TopicWindow")).item(named("HistoryPage"));
    let kept_since =
        "The unit does not keep what was before `kept_since`: ask from then on, or a longer unit.";
    let next = header(
        text(),
        "Of a page of a period that is not the last: where the next one is, as `rel=\"next\"`.",
    );
    operation(metric.as_str(), what, json, event, Some(next))
        .description(Some(PERIOD))
        .parameter(parameter(ParameterIn::Path, "unit", unit, "The length of the buckets."))
        .parameter(parameter(ParameterIn::Query, "payload", payload, full))
        .parameter(period(
            "from",
            "Of a period: buckets that begin then or later; all that are kept, without it.",
        ))
        .parameter(period("to", "Of a period: buckets that begin before; up to the last one, without it."))
        .parameter(parameter(ParameterIn::Query, "limit", limit, "Of a period: buckets of a page at most."))
        .response("404", refusal("There is no such unit."))
        .response("410", refusal(kept_since))
}

/// The counts of several topics.
pub(crate) fn many() -> OperationBuilder {
    let names = text().enum_values(Some(Topic::all().map(|topic| topic.to_string())));
    let topics =
        ArrayBuilder::new().items(names).min_items(Some(1)).max_items(Some(Topic::COUNT)).unique_items(true);
    let mut topics = parameter(
        ParameterIn::Query,
        "topic",
        topics,
        "The topics, in the order in which they are wanted: `?topic=item-creation/minute&topic=transfers/hour`.",
    );
    topics.required = Required::True;
    let windows = || ArrayBuilder::new().items(named("TopicWindow"));
    let event = AnyOfBuilder::new()
        .item(event("snapshot", windows()))
        .item(event("patch", windows()))
        .item(event("status", named("Status")));
    operation("statistics", "Counts of several topics, over one connection", windows(), event, None)
        .parameter(topics)
}

/// What all operations have in common: `window` is answered once, `event` again and again.
fn operation(
    id: &str,
    summary: &str,
    window: impl Into<RefOr<Schema>>,
    event: AnyOfBuilder,
    link: Option<Header>,
) -> OperationBuilder {
    let last = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(LAST_MAX));
    let last = parameter(ParameterIn::Query, "last", last, "The newest so many buckets only.");
    let heartbeat =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(HEARTBEAT_SECONDS_MAX));
    let beats = "Of a stream: seconds from one status to the next, at most, while all is well.";
    let heartbeat = parameter(ParameterIn::Query, "heartbeat", heartbeat, beats);
    let stream = ContentBuilder::new().description(Some(STREAM)).item_schema(Some(event));
    let csv =
        text().description(Some("A line `topic,time,count`, then one line for each bucket, oldest first."));
    let counts = answer("The counts of now; of a stream, and of each change from now on.")
        .header("Cache-Control", header(text().enum_values(Some(["no-store"])), "Counts are of now."));
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
        .parameter(last_event_id())
        .response("200", counts)
        .response("400", refusal("A query parameter is unknown, or wrong, or there twice."))
        .response("406", refusal("Nothing that `Accept` names can be had."))
        .response(
            "503",
            unavailable("There are no counts yet, no upstream answers, or the streams are too many."),
        )
}

fn last_event_id() -> Parameter {
    let description =
        "Of a stream: the `id` of the last event that was applied. Any other value gets a snapshot.";
    parameter(ParameterIn::Header, "Last-Event-ID", text(), description)
}

/// An event whose data are JSON; one without a name is a `message` to whoever reads it.
fn event(name: &str, data: impl Into<RefOr<Schema>>) -> ObjectBuilder {
    let data = text().content_media_type("application/json").content_schema(Some(data));
    let event = ObjectBuilder::new()
        .property("event", text().enum_values(Some([name])))
        .property("id", text().description(Some("Opaque.")))
        .property("data", data)
        .required("data");
    if name == "message" { event } else { event.required("event") }
}

fn schemas() -> Components {
    let count = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
    let bucket = ObjectBuilder::new()
        .description(Some("A bucket, and its absolute count."))
        .property("time", time().description(Some("The start of the bucket, in UTC.")))
        .required("time")
        .property("count", count.description(Some("How many events it holds.")))
        .required("count");
    let topics = || text().enum_values(Some(Topic::all().map(|topic| topic.to_string())));
    let window = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    let topic_window = ObjectBuilder::new()
        .description(Some("Buckets of one topic, oldest first."))
        .property("topic", topics())
        .required("topic")
        .property(
            "window",
            window.description(Some("How many buckets are kept, at most; beyond it the oldest go.")),
        )
        .required("window")
        .property("buckets", ArrayBuilder::new().items(named("Bucket")))
        .required("buckets");
    let upstream = text()
        .enum_values(Some(["live", "stale"]))
        .description(Some("`stale`: the counts may be old, for the upstream has not been heard of."));
    let status = ObjectBuilder::new()
        .description(Some("Whether the counts are live."))
        .property("upstream", upstream)
        .required("upstream")
        .property("since", time().description(Some("Since when.")))
        .required("since")
        .property("now", time().description(Some("The service's clock.")))
        .required("now");
    let or_null = |description| {
        let types = SchemaType::from_iter([Type::String, Type::Null]);
        time().schema_type(types).description(Some(description))
    };
    let page = ObjectBuilder::new()
        .description(Some(
            "Buckets of one topic in a period, oldest first, as of one snapshot of the database.",
        ))
        .property("topic", topics())
        .required("topic")
        .property("from", time().description(Some("Where the page begins.")))
        .required("from")
        .property("to", or_null("Where the period ends; null where it does not."))
        .required("to")
        .property("buckets", ArrayBuilder::new().items(named("Bucket")))
        .required("buckets")
        .property("next", or_null("From where to ask for the next page; null where this is the last."))
        .required("next");
    components()
        .schema("HistoryPage", page)
        .schema("Bucket", bucket)
        .schema("TopicWindow", topic_window)
        .schema("Status", status)
        .build()
}

/// A time of RFC 3339.
fn time() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn named(schema: &str) -> Ref {
    Ref::from_schema_name(schema)
}
