//! A TCP proxy that faults can be put into: it can be cut, stalled, slowed, reset, or led
//! elsewhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What a link does with its connections and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkMode {
    /// Everything is passed on.
    Open,
    /// All connections are closed, and each new one is closed at once.
    Cut,
    /// Nothing is passed on, not even the end of a stream. What was sent arrives when the link is
    /// open again.
    Stalled,
    /// Each kilobyte is passed on after this delay.
    Slow(Duration),
    /// All connections are reset, as if the other machine had restarted. New ones are passed on.
    /// The number distinguishes one reset from the next.
    Reset(u64),
    /// The connections that exist stay open, and nothing is passed on for the rest of their lives.
    /// New ones are passed on.
    Hung,
    /// As [`LinkMode::Hung`], but only for the connection that the target sees as coming from this
    /// port. All others are passed on.
    HungFrom(u16),
}

/// The most bytes that a slow link passes on at a time.
const SLOW_BYTES: usize = 1_024;

/// The most bytes that an open link passes on at a time.
const PIECE_BYTES: usize = 65_536;

/// The socket buffers at each end. They are small, so that a faulty link holds back little data
/// and its ends soon notice.
const BUFFER_BYTES: u32 = 16_384;

/// What a link's faults did to its traffic since the link was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkEffects {
    /// Connections that were closed or reset.
    pub broken_connections: u64,
    /// Bytes that were delayed.
    pub delayed_bytes: u64,
}

/// A proxy on 127.0.0.1. It and its connections end when this is dropped.
#[derive(Debug)]
pub struct Link {
    /// The two ends, as in `sse-gateway 1 to stats-notifier 2`.
    pub name: String,
    port: u16,
    target: Arc<AtomicU16>,
    mode: watch::Sender<LinkMode>,
    effects: Arc<Mutex<LinkEffects>>,
    _running: AbortOnDropHandle<()>,
}

impl Link {
    /// A link to a port of this machine.
    ///
    /// # Errors
    /// The operating system has no port to listen on.
    pub async fn to(name: String, port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(BUFFER_BYTES)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(64)?;
        let own = listener.local_addr()?.port();
        let (sender, mode) = watch::channel(LinkMode::Open);
        let target = Arc::new(AtomicU16::new(port));
        let effects = Arc::new(Mutex::default());
        let leads_to = Arc::clone(&target);
        let counted = Arc::clone(&effects);
        let running = tokio::spawn(async move {
            // The set ends the connections when the link is dropped.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let address = SocketAddr::from(([127, 0, 0, 1], leads_to.load(Ordering::SeqCst)));
                connections.spawn(connection(client, address, mode.clone(), Arc::clone(&counted)));
            }
        });
        let running = AbortOnDropHandle::new(running);
        Ok(Self { name, port: own, target, mode: sender, effects, _running: running })
    }

    /// The port on which the link listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The base URL for HTTP clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Leads new connections to another port from now on. Existing ones stay where they are.
    pub fn move_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Changes the mode.
    pub fn set(&self, mode: LinkMode) {
        self.mode.send_replace(mode);
    }

    /// Whether new connections are passed on without delay.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(
            *self.mode.borrow(),
            LinkMode::Open | LinkMode::Reset(_) | LinkMode::Hung | LinkMode::HungFrom(_)
        )
    }

    /// What the link's faults did until now.
    #[must_use]
    pub fn effects(&self) -> LinkEffects {
        *self.effects.lock()
    }
}

async fn connection(
    mut client: TcpStream,
    address: SocketAddr,
    mut mode: watch::Receiver<LinkMode>,
    effects: Arc<Mutex<LinkEffects>>,
) {
    if *mode.borrow_and_update() == LinkMode::Cut {
        effects.lock().broken_connections += 1;
        return;
    }
    let Ok(mut service) = connect(address).await else { return };
    let Ok(from) = service.local_addr().map(|own| own.port()) else { return };
    // The services send small messages at once too.
    if client.set_nodelay(true).is_err() || service.set_nodelay(true).is_err() {
        return;
    }
    let broken_by = {
        let (client_reads, client_writes) = client.split();
        let (service_reads, service_writes) = service.split();
        let forward = pump(client_reads, service_writes, mode.clone(), &effects);
        let back = pump(service_reads, client_writes, mode.clone(), &effects);
        tokio::select! {
            // First, so that a stalled link which breaks passes nothing on any more.
            biased;
            broken_by = until_broken(&mut mode, from) => Some(broken_by),
            // Each end may close its direction first.
            _ = async { tokio::join!(forward, back) } => None,
        }
    };
    match broken_by {
        None => return,
        // Both sockets stay open until the link is dropped.
        Some(LinkMode::Hung | LinkMode::HungFrom(_)) => return std::future::pending().await,
        Some(_) => {}
    }
    effects.lock().broken_connections += 1;
    if let Some(LinkMode::Reset(_)) = broken_by {
        // Closing then sends RST instead of FIN. If the option cannot be set, the link is cut.
        let _cut = (client.set_zero_linger(), service.set_zero_linger());
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.connect(address).await
}

/// Waits for a fault that ends the traffic of the connection from a port.
async fn until_broken(mode: &mut watch::Receiver<LinkMode>, from: u16) -> LinkMode {
    while mode.changed().await.is_ok() {
        match *mode.borrow_and_update() {
            broken @ (LinkMode::Cut | LinkMode::Reset(_) | LinkMode::Hung) => return broken,
            broken @ LinkMode::HungFrom(port) if port == from => return broken,
            LinkMode::HungFrom(_) | LinkMode::Open | LinkMode::Stalled | LinkMode::Slow(_) => {}
        }
    }
    LinkMode::Cut
}

/// Passes on one direction of a connection, and its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<LinkMode>,
    effects: &Mutex<LinkEffects>,
) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let most =
            if matches!(*mode.borrow(), LinkMode::Slow(_)) { SLOW_BYTES } else { PIECE_BYTES };
        let length = from.read(&mut piece[..most]).await.unwrap_or(0);
        let now = *mode.borrow_and_update();
        if let LinkMode::Stalled | LinkMode::Slow(_) = now {
            effects.lock().delayed_bytes += length as u64;
        }
        match now {
            LinkMode::Slow(delay) => tokio::time::sleep(delay).await,
            LinkMode::Stalled => {
                if mode.wait_for(|mode| *mode != LinkMode::Stalled).await.is_err() {
                    return;
                }
            }
            LinkMode::Open
            | LinkMode::Cut
            | LinkMode::Reset(_)
            | LinkMode::Hung
            | LinkMode::HungFrom(_) => {}
        }
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            // Passes on the end of the stream. This fails if the other end has gone.
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
        let link =
            Link::to("a to b".to_owned(), listener.local_addr().unwrap().port()).await.unwrap();
        let client = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (service, _) = listener.accept().await.unwrap();
        (link, client, service)
    }

    /// Sends some bytes from one end, which must arrive at the other one.
    async fn pass(from: &mut TcpStream, to: &mut TcpStream) {
        from.write_all(b"bytes").await.unwrap();
        arrive(to).await;
    }

    async fn arrive(to: &mut TcpStream) {
        let mut text = [0; 5];
        to.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"bytes");
    }

    fn effects(broken_connections: u64, delayed_bytes: u64) -> LinkEffects {
        LinkEffects { broken_connections, delayed_bytes }
    }

    #[tokio::test]
    async fn an_open_link_passes_on_both_directions_and_their_ends() {
        let (link, mut client, mut service) = joined().await;
        pass(&mut client, &mut service).await;
        pass(&mut service, &mut client).await;
        drop(client);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(link.effects(), effects(0, 0));
    }

    #[tokio::test]
    async fn a_stalled_link_passes_nothing_on_until_it_is_open() {
        let (link, mut client, mut service) = joined().await;
        link.set(LinkMode::Stalled);
        client.write_all(b"bytes").await.unwrap();
        while link.effects() != effects(0, 5) {
            tokio::task::yield_now().await;
        }
        assert_eq!(service.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        link.set(LinkMode::Open);
        arrive(&mut service).await;
    }

    #[tokio::test]
    async fn a_cut_link_closes_open_connections_and_new_ones() {
        let (link, mut client, mut service) = joined().await;
        link.set(LinkMode::Cut);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        let mut next = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        assert_eq!(next.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(link.effects(), effects(2, 0));
    }

    #[tokio::test]
    async fn a_link_is_reset_at_both_ends() {
        let (link, mut client, mut service) = joined().await;
        // Once a byte has arrived, the connection is known to be passed on.
        pass(&mut client, &mut service).await;
        link.set(LinkMode::Reset(1));
        for end in [&mut client, &mut service] {
            assert_eq!(end.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(link.effects(), effects(1, 0));
    }

    #[tokio::test]
    async fn a_slow_link_passes_on_little_at_a_time() {
        let (link, mut client, mut service) = joined().await;
        link.set(LinkMode::Slow(Duration::from_millis(1)));
        client.write_all(&[7; 3 * SLOW_BYTES]).await.unwrap();
        let mut pieces = vec![0; 3 * SLOW_BYTES];
        service.read_exact(&mut pieces).await.unwrap();
        assert_eq!(link.effects(), effects(0, 3 * SLOW_BYTES as u64));
    }

    #[tokio::test]
    async fn a_hung_connection_stays_open_and_a_new_one_goes_where_the_link_leads() {
        let (link, mut client, mut service) = joined().await;
        pass(&mut client, &mut service).await;
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        link.move_to(elsewhere.local_addr().unwrap().port());
        link.set(LinkMode::Hung);
        let mut next = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (mut accepted, _) = elsewhere.accept().await.unwrap();
        client.write_all(b"never").await.unwrap();
        pass(&mut next, &mut accepted).await;
        assert_eq!(service.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(link);
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_connection_hangs_and_another_does_not() {
        let (link, mut client, mut service) = joined().await;
        pass(&mut client, &mut service).await;
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        link.move_to(elsewhere.local_addr().unwrap().port());
        let mut next = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (mut accepted, _) = elsewhere.accept().await.unwrap();
        link.set(LinkMode::HungFrom(service.peer_addr().unwrap().port()));
        client.write_all(b"never").await.unwrap();
        pass(&mut next, &mut accepted).await;
        assert_eq!(service.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
