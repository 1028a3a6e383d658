//! A client's connection, and its bounds.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_web::rt::net::TcpStream;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::unsent::UnsentBytes;
use crate::visitors::Visit;

/// The size of the pieces in which an answer is handed to the connection. The server copies each
/// piece into the connection's buffer, and takes the next one only when there is room. So a client
/// that does not read costs one piece and not a whole answer, and a request lasts until nearly all
/// of its answer is sent: a slow client is not idle.
pub const PIECE_BYTES: usize = 16_384;

/// The requests of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Rc<RequestCounts>);

#[derive(Debug, Default)]
struct RequestCounts {
    active: Cell<usize>,
    ended: Cell<u64>,
    /// When the client must have received the answer, or the part of a stream, that is being sent.
    deadline: Cell<Option<Instant>>,
}

impl Requests {
    /// Begins a request, which lasts until the guard is dropped.
    pub(crate) fn begin(&self) -> RequestGuard {
        self.0.active.set(self.0.active.get() + 1);
        RequestGuard(Rc::clone(&self.0))
    }
}

/// A request that is being processed. It ends when the last byte of its answer was handed over.
#[derive(Debug)]
pub(crate) struct RequestGuard(Rc<RequestCounts>);

impl RequestGuard {
    /// Closes the connection at this moment, if there is one, unless the request has ended by then
    /// or has another deadline.
    fn set_deadline(&self, deadline: Option<Instant>) {
        self.0.deadline.set(deadline);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.deadline.set(None);
        self.0.active.set(self.0.active.get() - 1);
        self.0.ended.set(self.0.ended.get().wrapping_add(1));
    }
}

/// The body of an answer, in pieces. The request ends with it.
///
/// A large answer takes memory, and so does a part of a stream, or what the stream has made ready
/// behind it. So the client must receive each within a time limit.
pub(crate) struct CountedBody {
    content: Content,
    /// The unsent rest of the current part.
    rest: Bytes,
    request: Option<RequestGuard>,
    timeout: Duration,
}

enum Content {
    Whole(BoxBody),
    /// Only the size is sent.
    Omitted(BodySize),
}

impl CountedBody {
    /// The body of an answer to GET; or to HEAD, which gets only its size. `timeout` is how long
    /// the client may take to receive a large answer, or a part of a stream.
    pub(crate) fn new(
        body: BoxBody,
        omitted: bool,
        request: Option<RequestGuard>,
        timeout: Duration,
    ) -> Self {
        let content = if omitted { Content::Omitted(body.size()) } else { Content::Whole(body) };
        let body = Self { content, rest: Bytes::new(), request, timeout };
        if matches!(body.content, Content::Whole(_)) && !body.is_stream() {
            let is_large = match body.size() {
                BodySize::Sized(size) => usize::try_from(size).is_ok_and(|size| size > PIECE_BYTES),
                BodySize::None | BodySize::Stream => false,
            };
            body.limit_time(is_large);
        }
        body
    }

    fn is_stream(&self) -> bool {
        matches!(self.size(), BodySize::Stream)
    }

    /// Begins the time limit of what is sent next, or ends the current one.
    fn limit_time(&self, is_limited: bool) {
        if let Some(request) = &self.request {
            request.set_deadline(is_limited.then(|| Instant::now() + self.timeout));
        }
    }
}

impl MessageBody for CountedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        match &self.content {
            Content::Whole(body) => body.size(),
            Content::Omitted(size) => *size,
        }
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let body = self.get_mut();
        if body.rest.is_empty() {
            if body.is_stream() {
                body.limit_time(false);
            }
            let Content::Whole(whole) = &mut body.content else { return Poll::Ready(None) };
            match ready!(whole.as_pin_mut().poll_next(context)) {
                Some(Ok(part)) => {
                    if body.is_stream() {
                        body.limit_time(true);
                    }
                    body.rest = part;
                }
                ended => return Poll::Ready(ended),
            }
        }
        let length = body.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(body.rest.split_to(length))))
    }
}

/// A connection that is closed if no request is processed on it for too long.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// `None` if the address of the client has too many connections.
    visit: Option<Visit>,
    requests: Requests,
    /// How many requests had ended when the timer was set.
    ended: u64,
    /// Whether bytes came since then. They are a part of the next request, or the rest of the last
    /// one.
    receiving: bool,
    idle_timeout: Duration,
    head_timeout: Duration,
    unsent: UnsentBytes,
    timer: Pin<Box<Sleep>>,
    /// The deadline that the timer was set for last.
    limited_until: Option<Instant>,
}

impl Connection {
    /// Without a `visit`, the connection looks as if the client had closed it. `idle_timeout` is
    /// how long the connection may have no request, and `head_timeout` how long it may take to
    /// receive the next one, or the first. `unread` is how long the client may accept none of the
    /// data sent to it, and `unsent_bytes` is how much of it the operating system buffers before
    /// sending. `unsent` is the budget of what the clients of this port have not received.
    ///
    /// Without `unread` and `unsent_bytes`, Linux buffers some megabytes for a slow client, for as
    /// long as the client likes. No setting would bound that memory, and a stream's buffer would
    /// hold minutes of outdated states instead of one conflated frame. Data that was sent and
    /// awaits its acknowledgement is not bounded in bytes, so a fast client far away loses nothing.
    /// Only Linux has these bounds (`TCP_NOTSENT_LOWAT` and `TCP_USER_TIMEOUT`,
    /// <https://man7.org/linux/man-pages/man7/tcp.7.html>); elsewhere nothing is set.
    pub(crate) fn new(
        stream: TcpStream,
        visit: Option<Visit>,
        idle_timeout: Duration,
        head_timeout: Duration,
        unread: Duration,
        unsent_bytes: Option<u32>,
        unsent: UnsentBytes,
    ) -> Self {
        if let Err(error) = bound(&stream, unread, unsent_bytes) {
            tracing::debug!(error.message = %error, "cannot bound the buffers of a connection");
        }
        Self {
            stream,
            visit,
            requests: Requests::default(),
            ended: 0,
            receiving: true,
            idle_timeout,
            head_timeout,
            unsent,
            timer: Box::pin(tokio::time::sleep(head_timeout)),
            limited_until: None,
        }
    }

    /// The counter of its requests.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Fails if the connection has been idle for too long. The dispatcher flushes whenever it
    /// cannot make progress, so it calls this at the end of each request, and the timer wakes it
    /// here.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let counts = &self.requests.0;
        if counts.active.get() > 0 {
            return Ok(());
        }
        if self.ended != counts.ended.get() {
            self.ended = counts.ended.get();
            self.receiving = false;
            self.timer.as_mut().reset(Instant::now() + self.idle_timeout);
        }
        match self.timer.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Fails if the client takes too long to receive a large answer, or a part of a stream. This is
    /// checked when a write must wait, because nothing is flushed while the client does not read.
    /// The timer has no other use meanwhile: a connection with a request is not idle.
    ///
    /// While others wait for room in the budget, the client has less time: it is checked at this
    /// interval whether they do. That also applies to a small part of a stream, because the stream
    /// may have made a large one ready behind it.
    fn check_deadline(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = self.requests.0.deadline.get() else { return Ok(()) };
        let next_check = |interval| deadline.min(Instant::now() + interval);
        let interval = self.unsent.contended_timeout();
        if self.limited_until.replace(deadline) != Some(deadline) {
            self.timer.as_mut().reset(interval.map_or(deadline, next_check));
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline || self.unsent.is_contended() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(interval.map_or(deadline, next_check));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        if connection.visit.is_none() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut connection.stream).poll_read(context, buffer))?;
        let received = buffer.filled().len() > before;
        if received && !connection.receiving && connection.requests.0.active.get() == 0 {
            connection.receiving = true;
            connection.timer.as_mut().reset(Instant::now() + connection.head_timeout);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // A client that still receives its answer is not idle, even if its request has ended. So
        // whether the connection is idle is checked when everything is sent.
        let connection = self.get_mut();
        let written = Pin::new(&mut connection.stream).poll_write(context, bytes);
        if written.is_pending() {
            connection.check_deadline(context)?;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let connection = self.get_mut();
        connection.check(context)?;
        Pin::new(&mut connection.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(target_os = "linux")]
fn bound(stream: &TcpStream, unread: Duration, unsent_bytes: Option<u32>) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(unread))?;
    unsent_bytes.map_or(Ok(()), |bytes| socket.set_tcp_notsent_lowat(bytes))
}

#[cfg(not(target_os = "linux"))]
fn bound(_: &TcpStream, _: Duration, _: Option<u32>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;
    use tokio::net::TcpListener;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client, and the server's side of its connection.
    async fn connect(unsent: &UnsentBytes) -> (TcpStream, Connection) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let hour = 3_600 * SECOND;
        (
            client,
            Connection::new(stream, Some(Visit::default()), hour, hour, hour, None, unsent.clone()),
        )
    }

    /// The time after which a client that reads nothing is cut off.
    async fn cut_off((_client, mut connection): (TcpStream, Connection)) -> Duration {
        let request = connection.requests().begin();
        let started = Instant::now();
        request.set_deadline(Some(started + 120 * SECOND));
        let mut connection = Pin::new(&mut connection);
        let error = loop {
            let write =
                |context: &mut Context<'_>| connection.as_mut().poll_write(context, &[0; 65_536]);
            if let Err(error) = poll_fn(write).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        started.elapsed()
    }

    /// The clock is paused: it moves on only when everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_client_is_cut_off_early_only_while_others_wait_for_room() {
        let unlimited = UnsentBytes::unlimited();
        assert_eq!(cut_off(connect(&unlimited).await).await, 120 * SECOND);
        let unsent = UnsentBytes::new(2 * PIECE_BYTES, 120 * SECOND);
        let _held = unsent.reserve(2 * PIECE_BYTES).unwrap();
        assert_eq!(cut_off(connect(&unsent).await).await, 120 * SECOND);
        let mut waiting = Box::pin(unsent.wait(2 * PIECE_BYTES));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(cut_off(connect(&unsent).await).await, 6 * SECOND);
        drop(waiting);
        let connection = connect(&unsent).await;
        let wait_after_the_first_check = async {
            tokio::time::sleep(10 * SECOND).await;
            unsent.wait(2 * PIECE_BYTES).await
        };
        tokio::select! {
            time = cut_off(connection) => assert_eq!(time, 12 * SECOND),
            _ = wait_after_the_first_check => panic!("there is no room"),
        }
    }

    #[tokio::test]
    async fn a_body_is_sent_in_pieces_and_keeps_its_length() {
        let whole: Bytes = (0..=255).cycle().take(2 * PIECE_BYTES + 1).collect();
        let mut body =
            std::pin::pin!(CountedBody::new(whole.clone().boxed(), false, None, Duration::ZERO));
        assert_eq!(body.size(), BodySize::Sized(whole.len() as u64));
        let mut pieces = Vec::new();
        while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            pieces.push(piece.unwrap());
        }
        assert_eq!(
            pieces.iter().map(Bytes::len).collect::<Vec<_>>(),
            [PIECE_BYTES, PIECE_BYTES, 1]
        );
        assert_eq!(pieces.concat(), whole);
    }
}
