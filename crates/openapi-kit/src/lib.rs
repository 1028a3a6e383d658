//! The description of a service's paths in [OpenAPI 3.2](https://spec.openapis.org/oas/v3.2.0): for
//! programs at `/openapi.json`, and for people at `/docs`.
//!
//! Invariant: an [`Endpoint`] both answers a path and describes it, so every served path is
//! described, and every described path is served. What a method needs is an argument without a
//! default: the guard and the description both follow it. `/docs` loads nothing from another host.

pub mod access;

use std::borrow::Cow;
use std::io::Read as _;

use access_kit::guard::{Need, Needs};
use actix_web::body::BoxBody;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, LOCATION, VARY,
};
use actix_web::middleware::{Next, from_fn};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, web};
use bytes::Bytes;
use flate2::read::GzDecoder;
use utoipa::ToSchema;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItemBuilder,
    PathsBuilder,
};
use utoipa::openapi::schema::{Components, ComponentsBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Content, InfoBuilder, License, ObjectBuilder, OpenApi, OpenApiBuilder, OpenApiVersion, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema, SchemaFormat, Type,
};
use utoipa_swagger_ui::Config;

use service_kit::encoding::accepts_gzip;
use service_kit::observe::REQUEST_ID_BYTES;
use service_kit::problem;
use service_kit::unsent::ExistingBytes;

/// The path of the description.
pub const DESCRIPTION_PATH: &str = "/openapi.json";

/// How descriptions write [`service_kit::observe::REQUEST_ID`].
const REQUEST_ID_HEADER: &str = "X-Request-Id";

/// The name of the schema of [`problem::Problem`] among the components.
pub const PROBLEM: &str = "Problem";

/// The name, among the components, of the answer that every path has.
const MISDIRECTED: &str = "MisdirectedRequest";

/// The name of the security scheme.
const SECURITY: &str = "key";

/// The name, among the components, of the answer to a request without a valid key.
const UNAUTHORIZED: &str = "Unauthorized";

/// The name, among the components, of the answer to a request whose key does not permit it.
const FORBIDDEN: &str = "Forbidden";

/// The name, among the components, of the answer to a request beyond a limit.
const TOO_MANY: &str = "TooManyRequests";

/// The page that shows the description, and the files that it loads.
const DOCS_PATH: &str = "/docs";
const DOCS_FILES_PATTERN: &str = "/docs/{path:.*}";

/// What the pages may load: their own files, and the paths that they describe. They style elements
/// by attributes.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const MISDIRECTED_DESCRIPTION: &str = "The service does not have the host name in the address of the request. Use an IP address or \
     `localhost`, or let the operator allow the name (`http.allowed_hosts`).";

/// A path: a handler, a need and a description for each of its methods.
pub struct Endpoint {
    path: &'static str,
    resource: Resource,
    needs: Vec<(Method, Need)>,
    description: PathItemBuilder,
}

impl Endpoint {
    /// A path without methods.
    #[must_use]
    pub fn at(path: &'static str) -> Self {
        let (resource, description) = (web::resource(path), PathItemBuilder::new());
        Self { path, resource, needs: Vec::new(), description }
    }

    /// Answers GET.
    #[must_use]
    pub fn get<F, Arguments>(self, need: Need, handler: F, operation: OperationBuilder) -> Self
    where
        F: Handler<Arguments, Output: Responder + 'static>,
        Arguments: FromRequest + 'static,
    {
        self.method((Method::GET, HttpMethod::Get), need, handler, operation)
    }

    /// Answers POST.
    #[must_use]
    pub fn post<F, Arguments>(self, need: Need, handler: F, operation: OperationBuilder) -> Self
    where
        F: Handler<Arguments, Output: Responder + 'static>,
        Arguments: FromRequest + 'static,
    {
        self.method((Method::POST, HttpMethod::Post), need, handler, operation)
    }

    /// Answers PUT.
    #[must_use]
    pub fn put<F, Arguments>(self, need: Need, handler: F, operation: OperationBuilder) -> Self
    where
        F: Handler<Arguments, Output: Responder + 'static>,
        Arguments: FromRequest + 'static,
    {
        self.method((Method::PUT, HttpMethod::Put), need, handler, operation)
    }

    /// Answers DELETE.
    #[must_use]
    pub fn delete<F, Arguments>(self, need: Need, handler: F, operation: OperationBuilder) -> Self
    where
        F: Handler<Arguments, Output: Responder + 'static>,
        Arguments: FromRequest + 'static,
    {
        self.method((Method::DELETE, HttpMethod::Delete), need, handler, operation)
    }

    fn method<F, Arguments>(
        mut self,
        (method, described): (Method, HttpMethod),
        need: Need,
        handler: F,
        operation: OperationBuilder,
    ) -> Self
    where
        F: Handler<Arguments, Output: Responder + 'static>,
        Arguments: FromRequest + 'static,
    {
        let check = move |request: ServiceRequest, next: Next<BoxBody>| async move {
            need.check(request.request())?;
            next.call(request).await
        };
        let route = web::method(method.clone()).to(handler).wrap(from_fn(check));
        self.resource = self.resource.route(route);
        self.needs.push((method, need));
        let misdirected = Ref::from_response_name(MISDIRECTED);
        let operation = describe_need(need, operation.response("421", misdirected));
        self.description = self.description.operation(described, operation);
        self
    }

    /// Whether a part of the path is a parameter, such as `{id}`.
    #[must_use]
    pub fn has_parameter(&self) -> bool {
        self.path.contains('{')
    }

    /// The resource that answers the path; it answers other methods with 405.
    #[must_use]
    pub fn resource(self) -> Resource {
        let methods: Vec<_> = self.needs.into_iter().map(|(method, _)| method).collect();
        self.resource.default_service(problem::method_not_allowed(&methods))
    }
}

/// What the methods of endpoints, and the pages that describe them, need.
#[must_use]
pub fn needs<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> Needs {
    let mut needs = Needs::default();
    for endpoint in endpoints {
        for (method, need) in &endpoint.needs {
            needs.add(endpoint.path, method.clone(), *need);
        }
    }
    for path in [DESCRIPTION_PATH, DOCS_PATH, DOCS_FILES_PATTERN] {
        needs.add(path, Method::GET, Need::AnyKey);
    }
    needs
}

/// Adds to an operation which key it needs, and how it refuses others.
fn describe_need(need: Need, operation: OperationBuilder) -> OperationBuilder {
    let scopes = match need {
        Need::Nothing => return operation,
        Need::AnyKey => Vec::new(),
        Need::Permission(permission) => vec![permission.name()],
    };
    let operation = operation
        .security(SecurityRequirement::new(SECURITY, scopes))
        .response("401", Ref::from_response_name(UNAUTHORIZED))
        .response("429", Ref::from_response_name(TOO_MANY));
    match need {
        Need::Permission(_) => operation.response("403", Ref::from_response_name(FORBIDDEN)),
        Need::AnyKey | Need::Nothing => operation,
    }
}

/// The description of a service with these paths.
#[must_use]
pub fn describe(
    info: InfoBuilder,
    endpoints: impl IntoIterator<Item = Endpoint>,
    components: Components,
) -> OpenApi {
    let paths = endpoints.into_iter().fold(PathsBuilder::new(), |paths, endpoint| {
        paths.path(endpoint.path, endpoint.description.build())
    });
    let info = info.license(Some(License::builder().name("MIT").identifier(Some("MIT")).build()));
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version32)
        .info(info.build())
        .paths(paths)
        .components(Some(components))
        .build()
}

/// The schemas, headers and answers that every description uses.
#[must_use]
pub fn components() -> ComponentsBuilder {
    let description = "The path does not have this method. `Allow` lists the methods it has.";
    let allow = header(text(), "The methods of the path, separated by commas.");
    let id = text().min_length(Some(1)).max_length(Some(REQUEST_ID_BYTES));
    let id = header(
        id,
        "The request's own id, or a new one if it had none. Include it in questions about this answer.",
    );
    ComponentsBuilder::new()
        .schema(PROBLEM, problem_schema())
        .header(REQUEST_ID_HEADER, id)
        .response(MISDIRECTED, refusal(MISDIRECTED_DESCRIPTION))
        .response(UNAUTHORIZED, unauthorized())
        .response(FORBIDDEN, refusal(FORBIDDEN_DESCRIPTION))
        .response(TOO_MANY, unavailable(TOO_MANY_DESCRIPTION))
        .security_scheme(SECURITY, security_scheme())
        .response("MethodNotAllowed", refusal(description).header("Allow", allow))
}

const FORBIDDEN_DESCRIPTION: &str = "The key does not have the scope that this needs; `scope` names it. Or a page of another website \
     uses the session of its visitor's browser.";

const TOO_MANY_DESCRIPTION: &str = "The key sends too many requests, or has its share of what all clients share: at most a quarter of \
     the streams, uploads and reads at the same time. Or too many requests from this address were \
     refused.";

fn unauthorized() -> ResponseBuilder {
    let description = "The request presents no key, or one that is not valid. A `503` says instead \
                       that keys cannot be checked now.";
    let challenge = header(text(), "What is missing or wrong (RFC 6750, section 3).");
    refusal(description).header("WWW-Authenticate", challenge)
}

fn security_scheme() -> SecurityScheme {
    let description = "A key, which an operator makes with the program `access`. What it permits are \
                       its scopes. The page of the dashboard uses a cookie instead.";
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("nc_…");
    SecurityScheme::Http(scheme.description(Some(description)).build())
}

/// Serves a description, and pages that show it.
///
/// # Errors
/// The description cannot be written as JSON.
pub fn routes(
    description: &OpenApi,
) -> serde_json::Result<impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static + use<>> {
    let json = Bytes::from(description.to_pretty_json()?);
    Ok(move |routes: &mut web::ServiceConfig| {
        let json = json.clone();
        let answer = move || {
            let mut answer = HttpResponse::Ok();
            answer.content_type(mime::APPLICATION_JSON).extensions_mut().insert(ExistingBytes);
            std::future::ready(answer.body(json.clone()))
        };
        let get = web::get().to(answer);
        let description = web::resource(DESCRIPTION_PATH)
            .route(get)
            .default_service(problem::method_not_allowed(&[Method::GET]));
        // Otherwise the pages would send the description to a validator on another host.
        let config = Config::from(DESCRIPTION_PATH).validator_url("none").use_base_layout();
        let slash = || {
            std::future::ready(
                HttpResponse::PermanentRedirect().insert_header((LOCATION, "/docs/")).finish(),
            )
        };
        routes
            .service(description)
            .route(DOCS_PATH, web::get().to(slash))
            .app_data(web::Data::new(config))
            .route(DOCS_FILES_PATTERN, web::get().to(page));
    })
}

/// A file of the pages. The crate's own handler would copy it for each request.
///
/// Most files are embedded compressed. Browsers get them as they are; other clients, such as curl,
/// get a decompressed copy.
async fn page(
    request: HttpRequest,
    path: web::Path<String>,
    config: web::Data<Config<'static>>,
) -> HttpResponse {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(error.message = %error, "a page of the description cannot be shown");
        HttpResponse::InternalServerError().finish()
    };
    let file = match utoipa_swagger_ui::serve(&path, config.into_inner()) {
        Ok(Some(file)) => file,
        Ok(None) => return problem::not_found(request).await,
        Err(error) => return failed(&error),
    };
    let mut answer = HttpResponse::Ok();
    answer
        .content_type(file.content_type)
        .insert_header((CONTENT_SECURITY_POLICY, DOCS_POLICY))
        .insert_header((VARY, ACCEPT_ENCODING.as_str()));
    if file.gzpipped {
        if !accepts_gzip(&request) {
            let mut plain = Vec::new();
            return match GzDecoder::new(&*file.bytes).read_to_end(&mut plain) {
                Ok(_) => answer.body(plain),
                Err(error) => failed(&error),
            };
        }
        answer.insert_header((CONTENT_ENCODING, "gzip"));
    }
    match file.bytes {
        Cow::Borrowed(existing) => {
            answer.extensions_mut().insert(ExistingBytes);
            answer.body(Bytes::from_static(existing))
        }
        Cow::Owned(made) => answer.body(made),
    }
}

/// A parameter; it is optional unless it is part of the path.
#[must_use]
pub fn parameter(
    place: ParameterIn,
    name: &str,
    schema: impl Into<RefOr<Schema>>,
    description: &str,
) -> Parameter {
    let required = if place == ParameterIn::Path { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

/// An answer without a body.
#[must_use]
pub fn answer(description: &str) -> ResponseBuilder {
    let id = Ref::new(format!("#/components/headers/{REQUEST_ID_HEADER}"));
    ResponseBuilder::new().description(description).header_ref(REQUEST_ID_HEADER, id)
}

/// A refusal, as problem details.
#[must_use]
pub fn refusal(description: &str) -> ResponseBuilder {
    answer(description).content(problem::CONTENT_TYPE, content(Ref::from_schema_name(PROBLEM)))
}

/// A refusal that the client may retry.
#[must_use]
pub fn unavailable(description: &str) -> Response {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    refusal(description)
        .header("Retry-After", header(seconds, "After how many seconds to try again."))
        .build()
}

/// A header of an answer.
#[must_use]
pub fn header(schema: impl Into<RefOr<Schema>>, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

/// A body.
#[must_use]
pub fn content(schema: impl Into<RefOr<Schema>>) -> Content {
    Content::new(Some(schema))
}

/// The schema of a type, by its name among the components.
#[must_use]
pub fn schema_of<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// The schema of a text.
#[must_use]
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The schema of [`problem::Problem`].
fn problem_schema() -> Schema {
    let text = |description: &str| {
        ObjectBuilder::new().schema_type(Type::String).description(Some(description)).build()
    };
    let kind = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
        .pattern(Some("^/problems/[a-z-]+$"))
        .description(Some("The kind of problem, for programs. It is stable."))
        .examples(["/problems/not-found"]);
    let status = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(400))
        .maximum(Some(599))
        .description(Some("The status of the answer."));
    ObjectBuilder::new()
        .description(Some(
            "Problem details (RFC 9457): what is wrong with the request or with the service.",
        ))
        .property("type", kind)
        .property("title", text("The kind of problem, for people."))
        .property("status", status)
        .property("detail", text("What is wrong with this request, for people."))
        .property("field", text("The field, parameter or header that is wrong, if it is one."))
        .required("type")
        .required("title")
        .required("status")
        .required("detail")
        .into()
}
