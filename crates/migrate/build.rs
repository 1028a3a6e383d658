//! Embeds the migrations anew when one was added.
fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
