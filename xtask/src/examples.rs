//! What it takes to check the examples of the documentation: Python, Node, and a TypeScript compiler.

use anyhow::bail;

use crate::{node, packages};

/// Where the examples are, in the checkout.
const FOLDER: &str = "docs/examples";

/// A command that succeeds where Python is there.
const PYTHON: [[&str; 3]; 1] = [["python3", "-c", "import sys; sys.exit(sys.version_info < (3, 9))"]];

/// Brings what is missing, as far as this machine allows.
pub(crate) async fn bring() -> anyhow::Result<()> {
    if !node::are_there(&PYTHON).await && packages::can_install() {
        packages::install(&["python3"])?;
    }
    if !node::are_there(&PYTHON).await {
        bail!("the examples of the documentation need Python 3.9 or newer: install it, then try again");
    }
    node::bring().await?;
    node::install("installing the TypeScript compiler of the examples", &node::folder(FOLDER)).await
}
