//! What the shim's one epoll set says of a ready descriptor: a kind and an index, in one number.

/// SIGCHLD and the signals for the shim itself.
pub const SIGNALS: u64 = 0;
/// The one timer.
pub const TIMER: u64 = 1;
/// The control socket.
pub const LISTENER: u64 = 2;

/// The keeper's socket.
pub const KEEPER: u64 = 3;

const CLIENT: u64 = 1 << 32;
const CREATOR: u64 = 2 << 32;
const STARTED: u64 = 3 << 32;
const EXEC: u64 = 4 << 32;
const STREAM: u64 = 5 << 32;
const NOTIFY: u64 = 6 << 32;
const ORPHAN: u64 = 7 << 32;

/// A descriptor of the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// [`SIGNALS`].
    Signals,
    /// [`TIMER`].
    Timer,
    /// [`LISTENER`].
    Listener,
    /// [`KEEPER`].
    Keeper,
    /// A client of the control socket.
    Client(u32),
    /// The message of a creator, by the creator's pid.
    Creator(u32),
    /// The start pipe of a container's process, by its pid.
    Started(u32),
    /// Message or output of an exec, by its helper's pid.
    Exec(u32),
    /// A container's notification socket, by its index.
    Notify(u32),
    /// The process of a container that is not this shim's child, by its pid.
    Orphan(u32),
    /// A container's output: twice its index, plus one for standard error.
    Stream(u32),
}

/// See [`Token::Client`].
pub fn client(id: u32) -> u64 {
    CLIENT | u64::from(id)
}

/// See [`Token::Creator`].
pub fn creator(pid: i32) -> u64 {
    CREATOR | u64::from(pid.unsigned_abs())
}

/// See [`Token::Started`].
pub fn started(pid: i32) -> u64 {
    STARTED | u64::from(pid.unsigned_abs())
}

/// See [`Token::Exec`].
pub fn exec(pid: i32) -> u64 {
    EXEC | u64::from(pid.unsigned_abs())
}

/// See [`Token::Notify`].
pub fn notify(index: usize) -> u64 {
    NOTIFY | u64::from(u32::try_from(index).unwrap_or(u32::MAX))
}

/// See [`Token::Orphan`].
pub fn orphan(pid: i32) -> u64 {
    ORPHAN | u64::from(pid.unsigned_abs())
}

/// See [`Token::Stream`].
pub fn stream(index: u32) -> u64 {
    STREAM | u64::from(index)
}

/// What a number says; `None` for one that none of the above made.
pub fn token(raw: u64) -> Option<Token> {
    let index = u32::try_from(raw & 0xffff_ffff).ok()?;
    Some(match raw & !0xffff_ffff {
        0 => match raw {
            SIGNALS => Token::Signals,
            TIMER => Token::Timer,
            LISTENER => Token::Listener,
            KEEPER => Token::Keeper,
            _ => return None,
        },
        CLIENT => Token::Client(index),
        CREATOR => Token::Creator(index),
        STARTED => Token::Started(index),
        EXEC => Token::Exec(index),
        STREAM => Token::Stream(index),
        NOTIFY => Token::Notify(index),
        ORPHAN => Token::Orphan(index),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_number() {
        assert_eq!(token(SIGNALS), Some(Token::Signals));
        assert_eq!(token(client(7)), Some(Token::Client(7)));
        assert_eq!(token(creator(4_194_304)), Some(Token::Creator(4_194_304)));
        assert_eq!(token(stream(3)), Some(Token::Stream(3)));
        assert_eq!(token(99), None);
    }
}
