//! The memory of answers that wait for their clients.
//!
//! An answer that is not a stream is built whole, and stays in memory until its client has received
//! it. Clients that request large ones and do not read could fill the memory, one answer for each
//! connection. So all of them share one budget.
//!
//! Invariant: the answers of a public port, apart from streams and from answers of at most
//! [`PIECE_BYTES`], take at most the budget together, or there is only one of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use bytes::Bytes;
use metrics::{describe_gauge, gauge};

use crate::connection::PIECE_BYTES;
use crate::metrics::Metrics;
use crate::problem::Problem;

const UNSENT: &str = "http_server_unsent_bytes";

/// The budget of a process.
#[derive(Debug)]
pub(crate) struct UnsentBytes {
    reserved: AtomicUsize,
    max: usize,
}

impl UnsentBytes {
    /// A budget of `max` bytes.
    pub(crate) const fn new(max: usize) -> Self {
        Self { reserved: AtomicUsize::new(0), max }
    }

    /// Registers the help text.
    pub(crate) fn describe(metrics: &Metrics) {
        metrics.with(|| {
            describe_gauge!(
                UNSENT,
                "Bytes of answers that wait for their clients, apart from streams and small answers."
            );
        });
    }

    /// Records the value that is read at each scrape.
    #[expect(clippy::cast_precision_loss, reason = "memory has fewer than 2^52 bytes")]
    pub(crate) fn sample(&self, metrics: &Metrics) {
        metrics.with(|| gauge!(UNSENT).set(self.reserved.load(Ordering::Relaxed) as f64));
    }

    /// Reserves bytes until the reservation is dropped. An answer that is larger than the whole
    /// budget is possible, but only alone.
    fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let add = |reserved: usize| {
            let total = reserved.saturating_add(bytes);
            (total <= self.max || reserved == 0).then_some(total)
        };
        self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Reservation { budget: Arc::clone(self), bytes })
    }
}

#[derive(Debug)]
struct Reservation {
    budget: Arc<UnsentBytes>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.reserved.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that has its part of the budget until it is sent or given up.
struct ReservedBody {
    body: BoxBody,
    _reservation: Reservation,
}

impl MessageBody for ReservedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().body.as_pin_mut().poll_next(context)
    }
}

/// Middleware for [`actix_web::middleware::from_fn`]: replaces an answer that does not fit into the
/// budget by 503. The application's data contains [`UnsentBytes`] on a public port, and none on an
/// internal one: only our own services and operators' tools use that, and metrics must be available
/// while the budget is used up.
///
/// # Errors
/// The errors of the wrapped service.
pub(crate) async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let budget = request.app_data::<web::Data<UnsentBytes>>().cloned();
    let answer = next.call(request).await?.map_into_boxed_body();
    let (Some(budget), BodySize::Sized(size)) = (budget, answer.response().body().size()) else {
        return Ok(answer);
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size <= PIECE_BYTES {
        return Ok(answer);
    }
    let Some(reservation) = budget.into_inner().reserve(size) else {
        let detail = "Too many answers wait for clients that read slowly; try again later.";
        return Ok(answer.into_response(Problem::unavailable(detail).response()));
    };
    Ok(answer.map_body(|_, body| ReservedBody { body, _reservation: reservation }.boxed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_given_back_and_a_large_one_needs_the_whole_budget() {
        let budget = Arc::new(UnsentBytes::new(100));
        let [first, second] = [60, 40].map(|bytes| budget.reserve(bytes).unwrap());
        assert!(budget.reserve(1).is_none());
        drop(first);
        assert!(budget.reserve(61).is_none());
        assert!(budget.reserve(101).is_none());
        drop(second);
        let _larger = budget.reserve(101).unwrap();
        assert!(budget.reserve(1).is_none());
    }
}
