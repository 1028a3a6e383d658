//! A client's connection, and what bounds it.

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

/// How much of an answer is handed to the connection at a time. The server copies each piece into the connection's buffer,
/// and asks for the next one only when there is room: so a client that does not read costs a piece, not an answer. And a
/// request is under way until its answer is nearly all sent: a client that is slow is not idle.
const PIECE_BYTES: usize = 16_384;

/// The requests of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    under_way: Cell<usize>,
    ended: Cell<u64>,
}

impl Requests {
    /// A request, which is under way until this is dropped.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.under_way.set(self.0.under_way.get() + 1);
        UnderWay(Rc::clone(&self.0))
    }
}

/// A request that is under way, until the last byte of its answer was handed over.
#[derive(Debug)]
pub(crate) struct UnderWay(Rc<Counts>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.ended.set(self.0.ended.get().wrapping_add(1));
    }
}

/// The body of an answer, with which the request ends, in pieces.
pub(crate) struct Counted {
    content: Content,
    /// What is left of the part that is being sent.
    rest: Bytes,
    _under_way: Option<UnderWay>,
}

enum Content {
    Whole(BoxBody),
    /// As long as the whole, and not sent.
    Omitted(BodySize),
}

impl Counted {
    /// The body of an answer to GET, or to HEAD, which is told how long that would be, and gets nothing of it.
    pub(crate) fn new(body: BoxBody, omitted: bool, under_way: Option<UnderWay>) -> Self {
        let content = if omitted { Content::Omitted(body.size()) } else { Content::Whole(body) };
        Self { content, rest: Bytes::new(), _under_way: under_way }
    }
}

impl MessageBody for Counted {
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
            let Content::Whole(whole) = &mut body.content else { return Poll::Ready(None) };
            match ready!(whole.as_pin_mut().poll_next(context)) {
                Some(Ok(part)) => body.rest = part,
                ended => return Poll::Ready(ended),
            }
        }
        let length = body.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(body.rest.split_to(length))))
    }
}

/// A connection that is closed when no request was under way for too long.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    requests: Requests,
    /// How many requests had ended when the clock was set.
    ended: u64,
    patience: Duration,
    clock: Pin<Box<Sleep>>,
}

impl Connection {
    /// `patience` is how long no request may be under way; `unread` how long the client may take nothing of what it is
    /// sent, and `unsent_bytes` how much the operating system keeps of that before it is sent.
    ///
    /// Without the last two, Linux keeps up to some megabytes for a client that is slow, and keeps them for as long as the
    /// client likes: memory that no setting counts, and for a stream minutes of states that have long been overtaken,
    /// where conflation could have made one of them. What was sent and awaits its acknowledgement is not bounded in bytes,
    /// so a fast client far away loses nothing. Only Linux has such bounds (`TCP_NOTSENT_LOWAT` and `TCP_USER_TIMEOUT`,
    /// <https://man7.org/linux/man-pages/man7/tcp.7.html>); elsewhere nothing is set.
    pub(crate) fn new(
        stream: TcpStream,
        patience: Duration,
        unread: Duration,
        unsent_bytes: Option<u32>,
    ) -> Self {
        if let Err(error) = bound(&stream, unread, unsent_bytes) {
            tracing::debug!(error.message = %error, "what is kept for a connection cannot be bounded");
        }
        let clock = Box::pin(tokio::time::sleep(patience));
        Self { stream, requests: Requests::default(), ended: 0, patience, clock }
    }

    /// What counts its requests.
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// An error once no request was under way for too long. The dispatcher flushes whenever it has done what it can, so it
    /// comes by here at the end of each request, and is woken here when the time is over.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let counts = &self.requests.0;
        if counts.under_way.get() > 0 {
            return Ok(());
        }
        if self.ended != counts.ended.get() {
            self.ended = counts.ended.get();
            self.clock.as_mut().reset(Instant::now() + self.patience);
        }
        match self.clock.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Whoever still takes an answer is not idle, though its request has ended: the time is looked at when it is all sent.
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
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

    use super::*;

    #[tokio::test]
    async fn an_answer_comes_in_pieces_and_is_as_long_as_before() {
        let whole: Bytes = (0..=255).cycle().take(2 * PIECE_BYTES + 1).collect();
        let mut body = std::pin::pin!(Counted::new(whole.clone().boxed(), false, None));
        assert_eq!(body.size(), BodySize::Sized(whole.len() as u64));
        let mut pieces = Vec::new();
        while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            pieces.push(piece.unwrap());
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE_BYTES, PIECE_BYTES, 1]);
        assert_eq!(pieces.concat(), whole);
    }
}
