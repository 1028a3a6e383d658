//! The network between the nodes and the services: a bridge, and a cable from it to each node.
//!
//! Invariant: a node that is cut off is silent. Every side has the hardware addresses of all others
//! by permanent entries. Without them, the kernel would soon answer in the node's place that there
//! is no route to it, which is not what a cut cable does.

use super::namespace::run;

/// The nodes, by their number. Three are the fewest of which one may be away.
pub(super) const NODES: [u8; 3] = [1, 2, 3];

/// The number of the services' side.
const SERVICES: u8 = 254;

const BRIDGE: &str = "services";

/// The address of a side.
pub(super) fn address(side: u8) -> String {
    format!("10.0.0.{side}")
}

/// The addresses of all nodes, separated by commas.
pub(super) fn all_addresses() -> String {
    NODES.map(address).join(",")
}

/// The hardware address of a side.
fn hardware_address(side: u8) -> String {
    format!("02:00:00:00:00:{side:02x}")
}

fn cable(node: u8) -> String {
    format!("node{node}")
}

/// Makes the bridge, and the services' side of it.
pub(super) fn make_bridge() -> anyhow::Result<()> {
    let hardware = hardware_address(SERVICES);
    run("ip", &["link", "add", BRIDGE, "address", &hardware, "type", "bridge"])?;
    run("ip", &["addr", "add", &format!("{}/24", address(SERVICES)), "dev", BRIDGE])?;
    run("ip", &["link", "set", BRIDGE, "up"])?;
    NODES.iter().try_for_each(|node| {
        let words = neighbour(*node, BRIDGE);
        run("ip", &words.each_ref().map(String::as_str))
    })
}

/// Removes the bridge.
pub(super) fn remove_bridge() -> anyhow::Result<()> {
    run("ip", &["link", "del", BRIDGE])
}

/// Connects the network namespace of a process to the bridge, as this node.
pub(super) fn connect(node: u8, process_id: u32) -> anyhow::Result<()> {
    let cable = cable(node);
    let process = process_id.to_string();
    let hardware = hardware_address(node);
    // The end of a cable to a node that was killed may still be there.
    let _none = run("ip", &["link", "del", &cable]);
    let ends = ["link", "add", &cable, "type", "veth", "peer", "name", "eth0"];
    run("ip", &[&ends[..], &["address", &hardware, "netns", &process]].concat())?;
    run("ip", &["link", "set", &cable, "master", BRIDGE, "up"])?;
    let inside = |words: &[&str]| {
        let namespace = format!("--net=/proc/{process}/ns/net");
        run("nsenter", &[&[namespace.as_str(), "ip"], words].concat())
    };
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "add", &format!("{}/24", address(node)), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    NODES.into_iter().chain([SERVICES]).filter(|other| *other != node).try_for_each(|other| {
        let words = neighbour(other, "eth0");
        inside(&words.each_ref().map(String::as_str))
    })
}

/// Cuts a node off, from the other nodes and from the services.
pub(super) fn cut(node: u8) -> anyhow::Result<()> {
    run("ip", &["link", "set", &cable(node), "down"])
}

/// Ends a [`cut`].
pub(super) fn heal(node: u8) -> anyhow::Result<()> {
    run("ip", &["link", "set", &cable(node), "up"])
}

/// The words that make the address of a side known to a device.
fn neighbour(side: u8, device: &str) -> [String; 9] {
    let (address, hardware) = (address(side), hardware_address(side));
    ["neigh", "replace", &address, "lladdr", &hardware, "dev", device, "nud", "permanent"]
        .map(str::to_owned)
}
