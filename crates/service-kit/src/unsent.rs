//! The memory of answers that wait for their clients.
//!
//! A client may read as slowly as it likes. What it has not received stays in memory: an answer
//! that is built whole, or the current event of a stream. Clients that request large ones and do
//! not read could fill the memory, one for each connection. So all of them share one budget.
//!
//! Invariants: answers and events that wait for clients of a public port take at most the budget
//! together, or there is only one of them. Those of at most [`PIECE_BYTES`] are apart from it,
//! because a connection has only one. So are bytes that exist anyway ([`ExistingBytes`]), and
//! answers to writes: what was written must not be reported as failed. Their services bound them.
//!
//! While a stream waits for room, each client has only [`contended_timeout`] to receive what it
//! holds, a [`CONTENDED_DIVISOR`]th of the usual time. Otherwise a crowd of slow clients could hold
//! its parts of the budget for the whole time, one group after the other, and a new client would
//! wait for all of them. With this, all bytes that are held when a stream begins to wait are given
//! back within twice that time: within the first, further clients may still join, and within the
//! second, the last of them has received its bytes or is cut off. The room goes to those that wait
//! in order, so a stream waits at most that long for each budget's worth of bytes before its own.
//! Cutting off the oldest one at once would be quicker, but then clients of a crowd would cut off
//! each other, and none would receive its bytes.
//!
//! [`contended_timeout`]: UnsentBytes::contended_timeout

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, HttpRequest};
use bytes::Bytes;
use metrics::{describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use crate::connection::PIECE_BYTES;
use crate::metrics::Metrics;
use crate::problem::Problem;

const UNSENT: &str = "http_server_unsent_bytes";

/// The time to receive an answer, `http.answer_timeout`, is divided by this while others wait for
/// room. The defaults are 6 s for 32 MiB: at 45 Mbit/s, a server can send the whole budget in that
/// time, so a crowd of fast clients is served, and not cut off.
const CONTENDED_DIVISOR: u32 = 20;

/// The budget of a process; clones share it.
#[derive(Debug, Clone)]
pub struct UnsentBytes {
    /// A permit for each byte.
    room: Arc<Semaphore>,
    /// `None` if there is no limit.
    max: Option<usize>,
    /// The number of those that wait for room.
    waiting: Arc<AtomicUsize>,
    contended_timeout: Duration,
}

impl UnsentBytes {
    /// A budget of `max` bytes. Each client has `answer_timeout` to receive what it holds, and a
    /// fraction of it while others wait for room.
    pub fn new(max: usize, answer_timeout: Duration) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(max)),
            max: Some(max),
            waiting: Arc::default(),
            contended_timeout: answer_timeout / CONTENDED_DIVISOR,
        }
    }

    /// No limit, for an internal port: only our own services and operators' tools use it.
    pub fn unlimited() -> Self {
        Self {
            room: Arc::new(Semaphore::new(0)),
            max: None,
            waiting: Arc::default(),
            contended_timeout: Duration::ZERO,
        }
    }

    /// The budget of the port that a request came to.
    pub fn of(request: &HttpRequest) -> Self {
        request.app_data::<Self>().cloned().unwrap_or_else(Self::unlimited)
    }

    /// Registers the help text.
    pub(crate) fn describe(metrics: &Metrics) {
        metrics.with(|| {
            describe_gauge!(
                UNSENT,
                "Bytes of answers and of streams' events that wait for their clients, apart from small ones."
            );
        });
    }

    /// Records the value that is read at each scrape.
    #[expect(clippy::cast_precision_loss, reason = "memory has fewer than 2^52 bytes")]
    pub(crate) fn sample(&self, metrics: &Metrics) {
        let reserved = self.max.unwrap_or(0).saturating_sub(self.room.available_permits());
        metrics.with(|| gauge!(UNSENT).set(reserved as f64));
    }

    /// Reserves bytes until the reservation is dropped; `None` if there is no room. More than the
    /// whole budget is possible, but only alone.
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let Some(permits) = self.permits(bytes) else { return Some(self.free(bytes)) };
        let permit = Arc::clone(&self.room).try_acquire_many_owned(permits).ok()?;
        Some(self.reservation(permit))
    }

    /// As [`UnsentBytes::reserve`], but waits for room. Those that wait get it in order, so that
    /// small reservations do not keep a large one waiting for ever.
    pub async fn wait(&self, bytes: usize) -> Reservation {
        // This would not be a wait, for which clients are cut off.
        if let Some(reservation) = self.reserve(bytes) {
            return reservation;
        }
        let Some(permits) = self.permits(bytes) else { return self.free(bytes) };
        let _waiting = Waiting::begin(&self.waiting);
        match Arc::clone(&self.room).acquire_many_owned(permits).await {
            Ok(permit) => self.reservation(permit),
            // Cannot happen: the semaphore is never closed.
            Err(_) => self.free(bytes),
        }
    }

    /// Whether others wait for room.
    pub(crate) fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// How long a client has to receive what it holds while others wait for room; `None` if nothing
    /// ever waits.
    pub(crate) fn contended_timeout(&self) -> Option<Duration> {
        self.max.map(|_| self.contended_timeout)
    }

    /// The permits that bytes need, if they need any.
    fn permits(&self, bytes: usize) -> Option<u32> {
        let max = self.max.filter(|_| bytes > PIECE_BYTES)?;
        Some(u32::try_from(bytes.min(max)).unwrap_or(u32::MAX))
    }

    fn free(&self, bytes: usize) -> Reservation {
        let bytes = if self.max.is_none() { usize::MAX } else { bytes.max(PIECE_BYTES) };
        Reservation { permit: None, bytes, joinable_until: Instant::now() }
    }

    fn reservation(&self, permit: OwnedSemaphorePermit) -> Reservation {
        let permits = permit.num_permits();
        let bytes = if self.max == Some(permits) { usize::MAX } else { permits };
        let joinable_until = Instant::now() + self.contended_timeout;
        Reservation { permit: Some(permit), bytes, joinable_until }
    }
}

/// Counts as waiting until it is dropped, also if the wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of the budget.
#[derive(Debug)]
pub struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
    /// Until when further clients may share it although others wait. Without an end, clients that
    /// take turns could hold it for ever.
    joinable_until: Instant,
}

impl Reservation {
    /// Whether it is large enough.
    #[must_use]
    pub const fn fits(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }

    fn is_joinable(&self) -> bool {
        Instant::now() < self.joinable_until
    }

    /// Gives back what is more than `bytes`.
    fn shrink(&mut self, bytes: usize) {
        if bytes <= PIECE_BYTES {
            self.permit = None;
        } else if let Some(permit) = &mut self.permit {
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
    }
}

/// Bytes that are sent to any number of clients. They count once, as long as any client has them;
/// twice if a client joins late while others wait for room.
#[derive(Debug, Clone)]
pub struct SharedBytes {
    bytes: Bytes,
    reservation: Arc<Mutex<Weak<Reservation>>>,
}

impl SharedBytes {
    /// Bytes that no client has yet.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, reservation: Arc::default() }
    }

    /// The number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "what is sent is never empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes for one more client; `None` if the budget has no room for them.
    #[must_use]
    pub fn share(&self, budget: &UnsentBytes) -> Option<Bytes> {
        let mut shared = self.reservation.lock();
        let may_join = |earlier: &Arc<Reservation>| !budget.is_contended() || earlier.is_joinable();
        if let Some(earlier) = shared.upgrade().filter(may_join) {
            return Some(self.held(earlier));
        }
        let reservation = budget.reserve(self.len())?;
        Some(self.reserved(reservation, &mut shared))
    }

    /// The bytes for one more client, which has reserved room for them.
    #[must_use]
    pub fn share_within(&self, reservation: Reservation) -> Bytes {
        let mut shared = self.reservation.lock();
        match shared.upgrade().filter(|earlier| earlier.is_joinable()) {
            Some(earlier) => self.held(earlier),
            None => self.reserved(reservation, &mut shared),
        }
    }

    fn reserved(&self, mut reservation: Reservation, shared: &mut Weak<Reservation>) -> Bytes {
        reservation.shrink(self.len());
        if reservation.permit.is_none() {
            return self.bytes.clone();
        }
        let reservation = Arc::new(reservation);
        *shared = Arc::downgrade(&reservation);
        self.held(reservation)
    }

    fn held(&self, reservation: Arc<Reservation>) -> Bytes {
        Bytes::from_owner(HeldBytes { bytes: self.bytes.clone(), _reservation: reservation })
    }
}

struct HeldBytes {
    bytes: Bytes,
    _reservation: Arc<Reservation>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Marks an answer, in its extensions, whose bytes exist as long as the process does. It takes no
/// memory, however many clients do not read it.
#[derive(Debug, Clone, Copy)]
pub struct ExistingBytes;

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

/// Middleware for [`actix_web::middleware::from_fn`]: replaces an answer to GET that does not fit
/// into the budget by 503. The application's data contains [`UnsentBytes`], which are unlimited on
/// an internal port: only our own services and operators' tools use that, and metrics must be
/// available while the budget is used up.
///
/// A stream reserves room for each of its events itself.
///
/// # Errors
/// The errors of the wrapped service.
pub(crate) async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let budget = UnsentBytes::of(request.request());
    // HEAD came as GET.
    let is_read = *request.method() == Method::GET;
    let answer = next.call(request).await?.map_into_boxed_body();
    let BodySize::Sized(size) = answer.response().body().size() else { return Ok(answer) };
    if answer.response().extensions().contains::<ExistingBytes>() {
        return Ok(answer);
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    match budget.reserve(size) {
        Some(reservation) => {
            Ok(answer.map_body(|_, body| ReservedBody { body, _reservation: reservation }.boxed()))
        }
        // The client would repeat what was done.
        None if !is_read => Ok(answer),
        None => {
            let detail = "Too many answers wait for clients that read slowly; try again later.";
            Ok(answer.into_response(Problem::unavailable(detail).response()))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MAX: usize = 10 * PIECE_BYTES;
    const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
    const CONTENDED_TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn a_reservation_is_given_back_and_a_large_one_needs_the_whole_budget() {
        let budget = UnsentBytes::new(MAX, ANSWER_TIMEOUT);
        let [first, second] = [6, 4].map(|pieces| budget.reserve(pieces * PIECE_BYTES).unwrap());
        assert!(budget.reserve(PIECE_BYTES + 1).is_none());
        assert!(budget.reserve(PIECE_BYTES).is_some(), "small ones are not limited");
        drop(first);
        assert!(budget.reserve(6 * PIECE_BYTES + 1).is_none());
        assert!(budget.reserve(MAX + 1).is_none());
        drop(second);
        let larger = budget.reserve(MAX + 1).unwrap();
        assert!(larger.fits(2 * MAX));
        assert!(budget.reserve(PIECE_BYTES + 1).is_none());
    }

    #[test]
    fn shared_bytes_count_once_until_the_last_client_has_received_them() {
        let budget = UnsentBytes::new(MAX, ANSWER_TIMEOUT);
        let available = || budget.room.available_permits();
        let bytes = SharedBytes::new(Bytes::from(vec![0; 6 * PIECE_BYTES]));
        let mut first = bytes.share_within(budget.reserve(MAX).unwrap());
        assert_eq!(available(), 4 * PIECE_BYTES);
        let second = bytes.share(&budget).unwrap();
        assert_eq!((second.as_ptr(), available()), (first.as_ptr(), 4 * PIECE_BYTES));
        assert!(SharedBytes::new(bytes.bytes.clone()).share(&budget).is_none());
        let piece = first.split_to(PIECE_BYTES);
        drop((first, second));
        assert_eq!(available(), 4 * PIECE_BYTES);
        drop(piece);
        assert_eq!(available(), MAX);
        assert!(bytes.share(&budget).is_some());
    }

    #[test]
    fn a_large_reservation_waits_for_room_and_then_is_the_next_one() {
        let budget = UnsentBytes::new(MAX, ANSWER_TIMEOUT);
        let first = budget.reserve(6 * PIECE_BYTES).unwrap();
        let mut large = Box::pin(budget.wait(8 * PIECE_BYTES));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(budget.reserve(4 * PIECE_BYTES).is_none());
        drop(first);
        assert!(large.now_or_never().unwrap().fits(8 * PIECE_BYTES));
        assert_eq!(budget.room.available_permits(), MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_take_turns_do_not_keep_others_waiting() {
        let budget = UnsentBytes::new(MAX, ANSWER_TIMEOUT);
        let bytes = SharedBytes::new(Bytes::from(vec![0; 6 * PIECE_BYTES]));
        let first = bytes.share(&budget).unwrap();
        tokio::time::advance(CONTENDED_TIMEOUT).await;
        let second = bytes.share(&budget).expect("nothing waits");
        let mut newcomer = Box::pin(budget.wait(8 * PIECE_BYTES));
        assert!(newcomer.as_mut().now_or_never().is_none());
        assert!(budget.is_contended());
        assert!(bytes.share(&budget).is_none(), "it is too late to join");
        drop((first, second));
        let room = newcomer.now_or_never().unwrap();
        assert!(!budget.is_contended());
        // What is new may be joined while others wait.
        let first = bytes.share_within(room);
        let mut other = Box::pin(budget.wait(MAX));
        assert!(other.as_mut().now_or_never().is_none());
        assert!(bytes.share(&budget).is_some());
        // The wait is given up.
        drop(other);
        assert!(!budget.is_contended());
        // A client that waited for room of its own does not join what must be given back.
        tokio::time::advance(CONTENDED_TIMEOUT).await;
        let room = budget.reserve(MAX - 6 * PIECE_BYTES).unwrap();
        let own = bytes.share_within(room);
        drop(first);
        assert_eq!(budget.room.available_permits(), 6 * PIECE_BYTES);
        drop(own);
        assert_eq!(budget.room.available_permits(), MAX);
    }
}
