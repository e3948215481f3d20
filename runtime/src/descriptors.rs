//! Descriptors over unix sockets (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most that is sent or taken at once: three standard streams.
pub const MAX: usize = 3;

/// Sends bytes and, with the first of them, descriptors.
///
/// # Errors
/// Those of sendmsg(2); `InvalidInput` for more than [`MAX`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Takes bytes and the descriptors that came with them; those are closed on exec. More than [`MAX`]
/// at once are not taken: the kernel closes them.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_bytes_and_can_be_used() {
        let (left, right) = UnixStream::pair().expect("sockets");
        let (mut reader, writer) = io::pipe().expect("pipe");
        send(left.as_fd(), b"here", &[writer.as_fd()]).expect("sent");
        drop(writer);
        let mut bytes = [0; 16];
        let (n, fds) = receive(right.as_fd(), &mut bytes).expect("received");
        assert_eq!(&bytes[..n], b"here");
        let [fd] = fds.try_into().expect("one descriptor");
        std::fs::File::from(fd).write_all(b"through").expect("written");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
        let four = [right.as_fd(); 4];
        assert!(send(left.as_fd(), b"x", &four).is_err());
    }
}
