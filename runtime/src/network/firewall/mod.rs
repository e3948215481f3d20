//! nftables: one table of our own, and room for it in what other firewalls do.

pub mod foreign;
pub mod table;
