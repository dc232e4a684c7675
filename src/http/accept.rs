//! The TLS handshake of a connection.
//!
//! Owns what happens between accepting a connection and its first request, where there are certificates.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::connection::{Encrypted, Permit, Socket, TLS_BUFFER};

/// What who speaks plain HTTP is answered.
const PLAIN_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 59\r\n\
    Connection: close\r\n\
    \r\n\
    this port speaks TLS: connect with wss:// or with https://\n";

/// What of a plain request is read so that its answer arrives: a connection with something unread would be reset. Requests under `/v1` have no
/// more, unless messages may be longer than by default.
const PLAIN_REQUEST_SIZE: usize = 2 << 20;

/// Shakes hands over `tcp`, in so much time at the most.
///
/// # Errors
/// If that takes longer, the peer has gone, or the two can't agree.
pub(super) async fn encrypt(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    permit: Rc<Permit>,
    limit: Duration,
) -> io::Result<Socket> {
    let shaken = timeout(limit, shake_hands(tcp, config, permit)).await;
    let socket = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = &socket {
        log::debug!("a TLS handshake failed: {error}");
    }
    socket
}

async fn shake_hands(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    permit: Rc<Permit>,
) -> io::Result<Socket> {
    let mut first = [0];
    // The first byte of a TLS handshake is 22, and that of a request a letter.
    if tcp.peek(&mut first).await? > 0 && first[0].is_ascii_uppercase() {
        return refuse(tcp).await;
    }
    let accepting = TlsAcceptor::from(config).accept_with(tcp, |session| {
        session.set_buffer_limit(Some(TLS_BUFFER));
    });
    Ok(Socket::Tls(Box::new(Encrypted {
        stream: accepting.await?,
        permit,
    })))
}

/// Answers a request that came without TLS.
async fn refuse(mut tcp: TcpStream) -> io::Result<Socket> {
    tcp.write_all(PLAIN_REQUEST).await?;
    tcp.shutdown().await?;
    let mut rest = [0; 4096];
    let mut read = 0;
    while read < PLAIN_REQUEST_SIZE {
        match tcp.read(&mut rest).await? {
            0 => break,
            len => read += len,
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the peer speaks plain HTTP",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_plain_request_is_as_long_as_it_says() {
        let answer = str::from_utf8(PLAIN_REQUEST).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let declared = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        assert_eq!(declared, Some(&*body.len().to_string()));
    }
}
