//! An address that moves from one server to another, as that of a proxy does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// An address on 127.0.0.1. All connections end when it is dropped.
pub(crate) struct MovingAddress {
    pub(crate) port: u16,
    target: Arc<AtomicU16>,
    /// How often what was open was made to hang.
    hung: watch::Sender<u32>,
    _listening: AbortOnDropHandle<()>,
}

impl MovingAddress {
    /// One that leads to this port, for now.
    pub(crate) async fn leading_to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(port));
        let hung = watch::Sender::new(0);
        let (leads_to, hang) = (Arc::clone(&target), hung.clone());
        let listening = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass(client, leads_to.load(Ordering::SeqCst), hang.subscribe()));
            }
        });
        Self { port: own, target, hung, _listening: AbortOnDropHandle::new(listening) }
    }

    /// New connections go to another port from now on; those that are open stay where they are.
    pub(crate) fn move_to(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Connections that are open stay open from now on, and nothing passes.
    pub(crate) fn hang(&self) {
        self.hung.send_modify(|times| *times += 1);
    }
}

async fn pass(mut client: TcpStream, port: u16, mut hung: watch::Receiver<u32>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        _ended = copy_bidirectional(&mut client, &mut server) => return,
        _hangs = hung.changed() => {}
    }
    std::future::pending::<()>().await;
}
