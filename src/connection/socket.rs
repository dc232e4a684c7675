//! The socket, and what is asked of the kernel about it.

use std::{io, os::fd::AsRawFd};

/// What a connection is written to and read from.
pub(crate) type Socket = actix_web::rt::net::TcpStream;

/// Bytes that may lie unsent in the kernel. More would stand in front of every ping and answer; less would let the line run dry
/// between two turns of a busy worker.
const MAX_UNSENT: libc::c_int = 128 << 10;

/// Sets what every connection needs: small writes leave at once, and little lies unsent in the kernel.
///
/// # Errors
/// If the kernel refuses, which means that the connection is gone.
#[expect(unsafe_code, reason = "neither std nor tokio offers this option")]
pub(crate) fn tune(socket: &Socket) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let max_unsent = MAX_UNSENT;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the option is an integer of the size that is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
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

/// Bytes that were written and that the peer's TCP has not acknowledged.
#[expect(unsafe_code, reason = "neither std nor tokio offers this request")]
pub(crate) fn unacknowledged(socket: &Socket) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the request (`SIOCOUTQ`, of the same number as `TIOCOUTQ`)
    // writes one integer to where `bytes` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then(|| u64::try_from(bytes).unwrap_or(0))
}
