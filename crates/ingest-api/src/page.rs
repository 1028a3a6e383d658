//! Pages of a list: the query parameters that select one, and the body of the answer.

use std::collections::HashSet;

use actix_web::web::Query;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::model::Resource;
use crate::settings::Limits;

/// A query parameter that is unknown, repeated, or has a wrong value.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {detail}")]
pub struct QueryError {
    /// The name of the parameter.
    pub name: String,
    /// What is wrong, in words that follow the name of the parameter.
    pub detail: String,
}

/// Which page of a list a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// The page starts after the row with this id, or at the first row.
    pub after: Option<Uuid>,
    /// The maximum number of rows, at least 1.
    pub limit: i64,
}

impl PageQuery {
    /// Parses the query string of a request.
    ///
    /// # Errors
    /// [`QueryError`] with the name of the parameter that is wrong.
    pub fn parse(query: &str, limits: &Limits) -> Result<Self, QueryError> {
        let max = limits.max_page_rows.get();
        let mut page = Self { after: None, limit: limits.default_page_rows.get().into() };
        let wrong = |name: &str, detail: String| QueryError { name: name.to_owned(), detail };
        let query = Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| wrong("the query", error.to_string()))?;
        let mut names = HashSet::new();
        for (name, value) in query.into_inner() {
            if !names.insert(name.clone()) {
                return Err(wrong(&name, "must not be repeated".to_owned()));
            }
            match name.as_str() {
                "after" => {
                    let after = value
                        .parse()
                        .map_err(|_| wrong("after", format!("{value:?} is not a UUID")))?;
                    page.after = Some(after);
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=max).contains(limit));
                    let expected =
                        || wrong("limit", format!("{value:?} is not a number from 1 to {max}"));
                    page.limit = limit.ok_or_else(expected)?.into();
                }
                _ => {
                    let detail =
                        "is not a parameter of this path; its parameters are after and limit";
                    return Err(wrong(&name, detail.to_owned()));
                }
            }
        }
        Ok(page)
    }

    /// The number of rows to read: one more than the page has, which shows whether another page
    /// follows.
    pub(crate) const fn rows_to_read(self) -> i64 {
        self.limit + 1
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowPage<R> {
    /// The rows of the page.
    data: Vec<R>,
    /// The value of `after` that selects the next page; null on the last page.
    #[schema(required)]
    next: Option<Uuid>,
}

impl<R: Resource> RowPage<R> {
    /// As [`RowPage::new`], if the search for rows may have ended early: at the id `ended_at`,
    /// after which the next page continues.
    pub(crate) fn ended_at(query: PageQuery, rows: Vec<R>, ended_at: Option<Uuid>) -> Self {
        let page = Self::new(query, rows);
        Self { next: page.next.or(ended_at), ..page }
    }

    /// The page that `query` asks for, made of up to [`PageQuery::rows_to_read`] rows.
    pub(crate) fn new(query: PageQuery, mut rows: Vec<R>) -> Self {
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(Resource::id);
        Self { data: rows, next }
    }
}
