//! Ports for processes that cannot be asked to bind port 0.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Below the range the kernel hands out, so that no fake upstream or outgoing
/// connection takes a port between its choice and its use.
const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

/// A free port of 127.0.0.1, kept from all other tests of the machine until dropped.
pub struct Port {
    number: u16,
    /// An abstract socket is a lock that the kernel drops with the process.
    _lock: UnixListener,
}

impl Port {
    /// Reserves a port.
    pub fn reserve() -> Self {
        let start = u16::try_from(uuid::Uuid::now_v7().as_u128() % u128::from(COUNT))
            .expect("a remainder below COUNT");
        (0..COUNT)
            .map(|step| FIRST + (start + step) % COUNT)
            .find_map(Self::try_reserve)
            .expect("a free port of 127.0.0.1")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let name = format!("tollgate-it-port-{number}");
        let address = SocketAddr::from_abstract_name(name).ok()?;
        let lock = UnixListener::bind_addr(&address).ok()?;
        TcpListener::bind(("127.0.0.1", number)).ok()?;
        Some(Self {
            number,
            _lock: lock,
        })
    }
}

/// A port of 127.0.0.1 that refuses connections for as long as it is held.
pub fn refusing() -> Port {
    Port::reserve()
}
