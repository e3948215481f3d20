//! Links podshim at a fixed address.
//!
//! A position-independent program relocates 560 KiB of tables anew in each process: that was half of a
//! shim's private memory and a millisecond of each start. The heap, stacks and libraries are still
//! placed at random.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
