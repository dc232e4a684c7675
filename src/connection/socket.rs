//! The socket, plain or with TLS over it, and what is asked of the kernel about it.

use std::{
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_codec::{AsyncRead, AsyncWrite, ReadBuf};
use socket2::SockRef;
use tokio::{io::DuplexStream, net::TcpStream};
use tokio_rustls::server::TlsStream;

use super::Permit;

/// Bytes that may lie unsent in the kernel. More would stand in front of every ping and answer; less would let the line run dry
/// between two turns of a busy worker.
const MAX_UNSENT: libc::c_int = 128 << 10;

/// Encrypted bytes that may wait in front of the kernel. One write encrypts no more than this, and a client that does not read costs no more
/// of it; less would mean more system calls.
pub(crate) const TLS_BUFFER: usize = 64 << 10;

/// What a connection is written to and read from.
///
/// A write may leave something behind in a socket with TLS: a flush is pending until that is gone.
#[derive(Debug)]
pub(crate) enum Socket {
    /// As it came.
    Plain(TcpStream),
    /// Behind a TLS handshake.
    Tls(Box<Encrypted>),
    /// The server's own: whoever holds the other end speaks as a client does, and closes by dropping it.
    Inner(DuplexStream),
}

/// A connection with TLS.
#[derive(Debug)]
pub(crate) struct Encrypted {
    /// Which lets at most [`TLS_BUFFER`] bytes wait.
    pub(crate) stream: TlsStream<TcpStream>,
    /// Its place among all, which it has had since before its handshake.
    pub(crate) permit: Rc<Permit>,
}

impl Socket {
    /// Whether the other end is in this process.
    pub(crate) fn is_inner(&self) -> bool {
        matches!(self, Self::Inner(_))
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(encrypted) => Some(encrypted.stream.get_ref().0),
            Self::Inner(_) => None,
        }
    }

    /// Ends the connection. With TLS the peer is told that nothing is missing, if the kernel takes that at once.
    pub(crate) fn part(self) {
        if let Self::Tls(mut encrypted) = self {
            let cx = &mut Context::from_waker(Waker::noop());
            // Who is not there any more, or does not read, is not waited for.
            let _ = Pin::new(&mut encrypted.stream).poll_shutdown(cx);
        }
    }
}

/// Sets what every accepted connection needs: small writes leave at once, little lies unsent in the kernel, and a peer that acknowledges
/// not one byte of what waits for it for `write_timeout` is given up by the kernel. Who speaks WebSocket is looked after by the Hub
/// instead: see [`tune`].
///
/// # Errors
/// If the kernel refuses, which means that the connection is gone.
#[expect(unsafe_code, reason = "neither std nor tokio offers this option")]
pub(crate) fn tune_accepted(socket: &Socket, write_timeout: Duration) -> io::Result<()> {
    let Some(tcp) = socket.tcp() else {
        return Ok(());
    };
    SockRef::from(tcp).set_tcp_user_timeout(Some(write_timeout))?;
    tcp.set_nodelay(true)?;
    let max_unsent = MAX_UNSENT;
    // SAFETY: the descriptor is open as long as `tcp` is borrowed, and the option is an integer of the size that is told.
    let result = unsafe {
        libc::setsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const max_unsent).cast(),
            size_of_val(&max_unsent) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A connection that was [tuned](tune_accepted) is taken over: from now on its heartbeat tells whether it is stuck, with a Close frame.
///
/// # Errors
/// If the kernel refuses, which means that the connection is gone.
pub(crate) fn tune(socket: &Socket) -> io::Result<()> {
    match socket.tcp() {
        Some(tcp) => SockRef::from(tcp).set_tcp_user_timeout(None),
        None => Ok(()),
    }
}

/// Bytes that were written and that the peer's TCP has not acknowledged. With TLS it may say more than there are, by what encryption adds
/// and by what may wait in front of the kernel, so that nothing is ever taken for acknowledged which is not.
#[expect(unsafe_code, reason = "neither std nor tokio offers this request")]
pub(crate) fn unacknowledged(socket: &Socket) -> Option<u64> {
    let tcp = socket.tcp()?;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the request (`SIOCOUTQ`, of the same number as `TIOCOUTQ`)
    // writes one integer to where `bytes` is.
    let result = unsafe { libc::ioctl(tcp.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    let in_kernel = (result == 0).then(|| u64::try_from(bytes).unwrap_or(0))?;
    let in_front = match socket {
        Socket::Tls(encrypted) if encrypted.stream.get_ref().1.wants_write() => TLS_BUFFER as u64,
        Socket::Tls(_) | Socket::Plain(_) | Socket::Inner(_) => 0,
    };
    Some(in_kernel + in_front)
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(encrypted) => Pin::new(&mut encrypted.stream).poll_read(cx, buffer),
            Self::Inner(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(encrypted) => Pin::new(&mut encrypted.stream).poll_write(cx, bytes),
            Self::Inner(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(encrypted) => Pin::new(&mut encrypted.stream).poll_write_vectored(cx, slices),
            Self::Inner(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(encrypted) => Pin::new(&mut encrypted.stream).poll_flush(cx),
            Self::Inner(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(encrypted) => Pin::new(&mut encrypted.stream).poll_shutdown(cx),
            Self::Inner(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
