//! One WebSocket connection after its handshake.

mod frames;
mod outbox;
mod subscriber;
