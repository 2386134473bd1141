//! Where the built-in mock provider listens: a port of this process's own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Mutex;

use crate::mock::serve as mock_serve;

/// Stands for the mock's address where nothing is connected to. Nothing ever listens there.
pub const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The built-in mock provider, started when a configuration first names it.
#[derive(Debug)]
pub struct OwnMock {
    threads: usize,
    address: Mutex<Option<SocketAddr>>,
}

impl OwnMock {
    /// Not started yet; will run on `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            address: Mutex::new(None),
        }
    }

    /// Where it listens; starts it if it does not.
    ///
    /// # Errors
    /// The system has no port or no thread left.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let mut started = self
            .address
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(address) = *started {
            return Ok(address);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        self.start(listener)?;
        *started = Some(address);
        Ok(address)
    }

    fn start(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads)
            .thread_name("mock")
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        // It serves to the end of the process.
        std::thread::Builder::new()
            .name("mock".to_owned())
            .spawn(move || runtime.block_on(mock_serve(listener)))?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_once_asked_and_always_at_the_same_place() {
        let mock = OwnMock::new(1);
        let address = mock.address().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        assert_eq!(mock.address().unwrap(), address);
    }
}
