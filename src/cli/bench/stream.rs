//! The bytes of a connection, plain or over TLS.
//!
//! Owns the TLS session, which lies beside the socket and not in front of it: so a connection waits for its socket in both cases alike.

use std::{
    io::{self, ErrorKind, Read, Write},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use tokio::{io::Interest, net::TcpStream};

/// The bytes of a connection.
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// What a TLS session reads from and writes to.
struct Wire<'a>(&'a TcpStream);

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Shakes hands with the server that is called `name`.
    pub(super) async fn encrypted(
        tcp: TcpStream,
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() || session.wants_write() {
            let interest = if session.wants_write() {
                Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            tcp.ready(interest).await?;
            let moved = if session.wants_write() {
                session.write_tls(&mut Wire(&tcp))
            } else {
                receive(&mut session, &tcp)
            };
            match moved {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            tcp,
            tls: Some(Box::new(session)),
        })
    }

    /// The socket.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether there is something to read without waiting for the socket.
    pub(super) fn has_read(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.wants_read())
    }

    /// Whether something that was written waits for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// As [`TcpStream::try_read`].
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            return self.tcp.try_read(buffer);
        };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if receive(session, &self.tcp)? == 0 {
                return Ok(0);
            }
        }
    }

    /// As [`TcpStream::try_write`]; what was taken and not sent waits for [`try_send`](Self::try_send).
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            return self.tcp.try_write(bytes);
        };
        let taken = session.writer().write(bytes)?;
        self.try_send()?;
        match taken {
            0 => Err(ErrorKind::WouldBlock.into()),
            taken => Ok(taken),
        }
    }

    /// Sends what waits for the socket, as far as it takes it.
    pub(super) fn try_send(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.tls {
            while session.wants_write() {
                match session.write_tls(&mut Wire(&self.tcp)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn receive(session: &mut ClientConnection, tcp: &TcpStream) -> io::Result<usize> {
    let read = session.read_tls(&mut Wire(tcp))?;
    session.process_new_packets().map_err(io::Error::other)?;
    Ok(read)
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
