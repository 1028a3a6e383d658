//! Postgres clusters that run on this machine, with the programs that are installed on it.

mod cluster;
mod error;
mod installation;
mod settings;

pub use self::cluster::{Cluster, StopMode};
pub use self::error::PostgresError;
pub use self::installation::{Installation, PostgresVersion};
pub use self::settings::ClusterSettings;
