//! Pages of a list: which rows a caller asks for, and what it is answered.

use std::collections::HashSet;

use actix_web::HttpResponse;
use actix_web::web::Query;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::error::ApiError;
use crate::settings::Limits;
use crate::store::Resource;

/// Which rows of a list are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Those past the row of this id, where there is one.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: i64,
}

impl Page {
    /// What the query of a request asks for.
    ///
    /// # Errors
    /// [`ApiError::Query`], naming the parameter that is wrong.
    pub fn of(query: &str, limits: &Limits) -> Result<Self, ApiError> {
        let most = limits.page_rows_max.get();
        let mut page = Self { after: None, limit: limits.page_rows_default.get().into() };
        let wrong = |name: &str, detail: String| ApiError::Query { name: name.to_owned(), detail };
        let query = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| wrong("the query", error.to_string()))?;
        let mut given = HashSet::new();
        for (name, value) in query.into_inner() {
            if !given.insert(name.clone()) {
                return Err(wrong(&name, "is there more than once".to_owned()));
            }
            match name.as_str() {
                "after" => {
                    let after =
                        value.parse().map_err(|_| wrong("after", format!("{value:?} is not a UUID")))?;
                    page.after = Some(after);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                    let expected = || wrong("limit", format!("{value:?} is not a number from 1 to {most}"));
                    page.limit = limit.ok_or_else(expected)?.into();
                }
                _ => {
                    return Err(wrong(
                        &name,
                        "there is no such parameter here; there are: after, limit".into(),
                    ));
                }
            }
        }
        Ok(page)
    }

    /// The page, from one row more than it has, which tells whether there is a next.
    pub(crate) fn answer<R: Resource + Serialize>(self, mut rows: Vec<R>) -> HttpResponse {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(Resource::id);
        HttpResponse::Ok().json(json!({ "data": rows, "next": next }))
    }
}
