//! A gateway as a process of its own: its memory can be measured, and it has its own environment.

use std::sync::{Arc, Mutex};

use local_stack::internal;
use local_stack::ports::reserve_port;
use local_stack::process::ServiceProcess;
use local_stack::stack::built_programs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::DEADLINE;

pub(crate) struct GatewayProcess {
    pub(crate) process: ServiceProcess,
    pub(crate) port: u16,
    pub(crate) internal_url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl GatewayProcess {
    /// Follows these upstreams. Returns when the gateway has counts.
    pub(crate) async fn start(upstreams: &str, variables: &[(&'static str, &str)]) -> Self {
        let [port, internal_port] = [(); 2].map(|()| reserve_port().unwrap());
        let mut all = vec![
            ("NEWCYCLE__HTTP__PORT", port.to_string()),
            ("NEWCYCLE__INTERNAL__PORT", internal_port.to_string()),
            ("NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.to_owned()),
            ("NEWCYCLE__STREAM__PACE", "1ms".to_owned()),
            ("NEWCYCLE__ACCESS__MODE", "open".to_owned()),
            ("NEWCYCLE__INTERNAL__SECRET_FILE", internal::secret_file().display().to_string()),
        ];
        all.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let keep = move |line: &str| lines.lock().unwrap().push(line.to_owned());
        let process =
            ServiceProcess::start(&built_programs().unwrap(), "sse-gateway", &all, keep).unwrap();
        let internal_url = format!("http://127.0.0.1:{internal_port}");
        let gateway = Self { process, port, internal_url, log };
        let ready = async {
            while reqwest::get(format!("{}/readyz", gateway.internal_url))
                .await
                .map_or(true, |answer| answer.status() != 200)
            {}
        };
        tokio::time::timeout(DEADLINE, ready).await.expect("the gateway must become ready");
        gateway
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The lines that it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let url = format!("{}/metrics", self.internal_url);
        let text = internal::get(url).await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}: {text}")).parse().unwrap()
    }

    /// Requests a path with the smallest possible receive buffer, and reads only the status.
    pub(crate) async fn stall(&self, path: &str, headers: &str) -> (TcpStream, u16) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        let mut stalled = socket.connect(([127, 0, 0, 1], self.port).into()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
        stalled.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stalled.read_exact(&mut head).await.unwrap();
        let status = std::str::from_utf8(&head).unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        (stalled, status.parse().unwrap())
    }
}
