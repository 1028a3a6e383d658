//! What checking the examples of the documentation needs: Python, Node, and a TypeScript compiler.

use std::process::{Command, Stdio};

use anyhow::bail;

use crate::command::in_checkout;
use crate::install;
use crate::node::Node;

/// Installs what is missing.
///
/// # Errors
/// Something is missing that cannot be installed.
pub(crate) async fn ensure() -> anyhow::Result<()> {
    if !has_python() {
        install::packages(&["python3"])?;
    }
    if !has_python() {
        bail!(
            "the examples of the documentation need Python 3.10 or newer: install it, then try again"
        );
    }
    let folder = in_checkout("docs/examples");
    let node = Node::ensure().await?;
    node.install("installing the TypeScript compiler of the examples", &folder).await
}

fn has_python() -> bool {
    let script = "import sys; sys.exit(sys.version_info < (3, 10))";
    let status = Command::new("python3").args(["-c", script]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
