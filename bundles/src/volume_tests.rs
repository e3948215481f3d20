//! Host names, hosts files, resolver files and emptyDir volumes.
