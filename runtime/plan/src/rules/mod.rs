//! The rules of a pod's life, one file an idea. Each opens with the sentence of Kubernetes that it
//! implements. They read the state and write into a plan's draft, or only compute; who asks them,
//! and in which order, stands in `plan`.

pub(crate) mod asked;
pub(crate) mod backoff;
pub(crate) mod create;
pub(crate) mod hook;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod loss;
pub(crate) mod main;
pub(crate) mod notify;
pub(crate) mod probe;
pub(crate) mod restart;
pub(crate) mod sandbox;
pub(crate) mod stop;
