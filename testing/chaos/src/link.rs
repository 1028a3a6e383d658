//! A TCP connection between two parts, as a wire that can be cut, stalled, slowed or reset.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What happens to what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is passed on.
    Open,
    /// All connections are closed, and so is each new one at once.
    Cut,
    /// Nothing is passed on, not even that an end was closed; what was sent comes once the link is open again.
    Stalled,
    /// Each kilobyte is passed on after this wait.
    Slow(Duration),
    /// All connections are reset, as by a machine that knows nothing of them; new ones are passed on. The number tells
    /// one reset from the next.
    Reset(u64),
}

/// The most that a slow link passes on at a time.
const SLOW_BYTES: usize = 1_024;

/// The most that an open link passes on at a time.
const PIECE_BYTES: usize = 65_536;

/// What the system may keep at each end: little, for a wire keeps nothing.
const BUFFER_BYTES: u32 = 16_384;

/// What a link's faults have done to its traffic, counted since it was made.
#[derive(Debug, Default)]
struct Effects {
    /// Connections ended.
    broken: AtomicU64,
    /// Bytes held back.
    held: AtomicU64,
}

/// A listener that passes on what it hears, in both directions, until dropped.
#[derive(Debug)]
pub struct Link {
    /// What it joins, as in `sse-gateway 1 → stats-notifier 2`.
    pub name: String,
    port: u16,
    mode: watch::Sender<Mode>,
    effects: Arc<Effects>,
    _running: AbortOnDropHandle<()>,
}

impl Link {
    /// One to a port of this machine.
    ///
    /// # Errors
    /// There is no port to listen on.
    pub async fn to(name: String, port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(BUFFER_BYTES)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(64)?;
        let (sender, mode) = watch::channel(Mode::Open);
        let effects = Arc::new(Effects::default());
        let own = listener.local_addr()?.port();
        let counted = Arc::clone(&effects);
        let running = tokio::spawn(async move {
            // Ends with the link: its connections too, which live in the set.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                connections.spawn(connection(client, address, mode.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { name, port: own, mode: sender, effects, _running: AbortOnDropHandle::new(running) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The same, for clients of HTTP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What happens from now on to what is sent.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Whether everything is passed on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(*self.mode.borrow(), Mode::Open | Mode::Reset(_))
    }

    /// How many connections its faults have ended, and how many bytes they have held back, until now.
    #[must_use]
    pub fn effects(&self) -> (u64, u64) {
        (self.effects.broken.load(Ordering::Relaxed), self.effects.held.load(Ordering::Relaxed))
    }
}

async fn connection(
    mut client: TcpStream,
    address: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    effects: Arc<Effects>,
) {
    if *mode.borrow_and_update() == Mode::Cut {
        effects.broken.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let Ok(mut service) = connect(address).await else { return };
    // What is small is not to wait for more: the services would not either.
    if client.set_nodelay(true).is_err() || service.set_nodelay(true).is_err() {
        return;
    }
    let broken = {
        let (client_reads, client_writes) = client.split();
        let (service_reads, service_writes) = service.split();
        let there = pump(client_reads, service_writes, mode.clone(), &effects);
        let back = pump(service_reads, client_writes, mode.clone(), &effects);
        tokio::select! {
            broken = broken(&mut mode) => Some(broken),
            // Each end may close its direction first.
            _ = async { tokio::join!(there, back) } => None,
        }
    };
    let Some(broken) = broken else { return };
    effects.broken.fetch_add(1, Ordering::Relaxed);
    if let Mode::Reset(_) = broken {
        // Closing then sends RST instead of FIN. Where it cannot be set, the link is cut.
        let _cut = (client.set_zero_linger(), service.set_zero_linger());
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.connect(address).await
}

/// Waits for a fault that ends the connection.
async fn broken(mode: &mut watch::Receiver<Mode>) -> Mode {
    while mode.changed().await.is_ok() {
        if let broken @ (Mode::Cut | Mode::Reset(_)) = *mode.borrow_and_update() {
            return broken;
        }
    }
    Mode::Cut
}

/// Passes on one direction, and its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    effects: &Effects,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let most = if matches!(*mode.borrow(), Mode::Slow(_)) { SLOW_BYTES } else { PIECE_BYTES };
        let length = from.read(&mut piece[..most]).await.unwrap_or(0);
        let now = *mode.borrow_and_update();
        if let Mode::Stalled | Mode::Slow(_) = now {
            effects.held.fetch_add(length as u64, Ordering::Relaxed);
        }
        match now {
            Mode::Slow(wait) => tokio::time::sleep(wait).await,
            Mode::Stalled => {
                if mode.wait_for(|mode| *mode != Mode::Stalled).await.is_err() {
                    return;
                }
            }
            Mode::Open | Mode::Cut | Mode::Reset(_) => {}
        }
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            // Whoever reads the other end is told; where that fails, it has gone.
            let _gone = to.shutdown().await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tokio::net::TcpListener;

    use super::*;

    /// A link, with the two ends of a connection through it.
    async fn joined() -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to("a to b".to_owned(), listener.local_addr().unwrap().port()).await.unwrap();
        let client = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (service, _) = listener.accept().await.unwrap();
        (link, client, service)
    }

    async fn heard(end: &mut TcpStream) -> String {
        let mut text = [0; 5];
        end.read_exact(&mut text).await.unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_open_link_passes_on_both_directions_and_their_ends() {
        let (link, mut client, mut service) = joined().await;
        client.write_all(b"there").await.unwrap();
        assert_eq!(heard(&mut service).await, "there");
        service.write_all(b"back.").await.unwrap();
        assert_eq!(heard(&mut client).await, "back.");
        drop(client);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(link.effects(), (0, 0));
    }

    #[tokio::test]
    async fn a_stalled_link_passes_nothing_on_until_it_is_open() {
        let (link, mut client, mut service) = joined().await;
        link.set(Mode::Stalled);
        client.write_all(b"there").await.unwrap();
        while link.effects() != (0, 5) {
            tokio::task::yield_now().await;
        }
        assert_eq!(service.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        link.set(Mode::Open);
        assert_eq!(heard(&mut service).await, "there");
    }

    #[tokio::test]
    async fn a_cut_link_ends_what_there_is_and_what_comes() {
        let (link, mut client, mut service) = joined().await;
        link.set(Mode::Cut);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        let mut next = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        assert_eq!(next.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(link.effects(), (2, 0));
    }

    #[tokio::test]
    async fn a_link_is_reset_at_both_ends() {
        let (link, mut client, mut service) = joined().await;
        // So that the connection is known to be passed on.
        client.write_all(b"there").await.unwrap();
        assert_eq!(heard(&mut service).await, "there");
        link.set(Mode::Reset(1));
        for end in [&mut client, &mut service] {
            assert_eq!(end.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(link.effects(), (1, 0));
    }

    #[tokio::test]
    async fn a_slow_link_passes_on_little_at_a_time() {
        let (link, mut client, mut service) = joined().await;
        link.set(Mode::Slow(Duration::from_millis(1)));
        client.write_all(&[7; 3 * SLOW_BYTES]).await.unwrap();
        let mut pieces = vec![0; 3 * SLOW_BYTES];
        service.read_exact(&mut pieces).await.unwrap();
        assert_eq!(link.effects(), (0, 3 * SLOW_BYTES as u64));
    }
}
