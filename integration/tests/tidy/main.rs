//! Tidy: rules about the source tree itself, held by an ordinary test.
//!
//! Three pages: what we depend on and who may depend on whom (`dependencies`), what source files look
//! like (`sources`), what documents and examples promise (`documents`). It reads files and asks cargo;
//! it needs no root, no kernel and no network, and it does not look at behaviour.

#![cfg(test)]

mod dependencies;
mod documents;
mod licence;
mod sources;
mod tree;
