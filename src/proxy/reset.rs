//! Makes the end of a connection a TCP reset, for the one protocol in which a plain end says
//! that everything has arrived: HTTP/1.0.

use std::io::{Error, IoSlice, IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use pingora_core::protocols::http::v1::server::HttpSession as Http1;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// From now on, closing the session's connection resets it. Nothing is closed here.
pub fn when_closed(session: &Http1) {
    let socket = duplicate(session.stream().id());
    let set = socket.and_then(|socket| Ok(set_socket_linger(socket, Some(Duration::ZERO))?));
    // The connection ends as any other, then: that is no reason to fail.
    if let Err(error) = set {
        log::warn!("a broken answer to an HTTP/1.0 client may look complete: {error}");
    }
}

/// Another descriptor of the same socket. Pingora shows a socket only as the number of its
/// descriptor, with which safe code can do little but send it; what arrives is a descriptor
/// that it may use. That is slow, and done once per broken answer.
pub fn duplicate(socket: RawFd) -> Result<OwnedFd> {
    let (from, to) = UnixDatagram::pair()?;
    let sent = [socket];
    let rights = [ControlMessage::ScmRights(&sent)];
    let letter = [IoSlice::new(b"-")];
    sendmsg::<()>(from.as_raw_fd(), &letter, &rights, MsgFlags::empty(), None)?;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut enclosed = RecvAncillaryBuffer::new(&mut space);
    let mut letter = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    recvmsg(
        to,
        &mut [IoSliceMut::new(&mut letter)],
        &mut enclosed,
        flags,
    )?;
    let descriptor = enclosed.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| Error::other("the descriptor was lost"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_duplicate_is_the_same_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let again = duplicate(server.as_raw_fd()).unwrap();
        set_socket_linger(again, Some(Duration::ZERO)).unwrap();
        drop(server);
        let end = client.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
}
