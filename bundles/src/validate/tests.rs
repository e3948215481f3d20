//! One row a rule: what is added to a good object, and what is said about it.
