//! HTTP: the way in.
//!
//! Owns the handshakes (of TLS, where there is one, and of WebSocket), the routes under `/v1`, and the few beside them. Does not own the
//! connection that follows a WebSocket handshake: once that is judged, the socket is handed to the worker, and what HTTP needed for it is
//! dropped.

mod accept;
mod api;
mod handshake;
mod origin;
mod routes;
mod status;
mod token;
mod upgrade;

use std::{
    convert::Infallible,
    future::ready,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use actix::{Actor, Recipient};
use actix_http::{HttpService, Protocol, error::DispatchError};
use actix_server::Server;
use actix_service::{ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::dev::AppConfig;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    access::Authenticator,
    actors::{
        hub::Hub, hubs::RegisterHub, neighbours::Neighbours, session::Conversation, worker::Worker,
    },
    certificates::Certificates,
    config::Config,
    connection::{Gate, Identities, Socket, tune_accepted},
    metrics::Metrics,
};
pub(crate) use status::{Otherwise, Readers, serve as serve_status};

use self::api::{Api, link::LinkPlace};

/// How long the parting of a plain HTTP connection may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a plain HTTP connection may be idle: longer than clients keep theirs, so that they are the ones who end them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// HTTP connections and handshakes that a worker has at once, beside those that the configuration allows: others wait to be accepted.
/// What is over the configuration's limit is answered so. A connection that was handed to the worker counts no longer.
const MAX_HANDSHAKES: usize = 4096;

/// Whom HTTP's side of the server speaks to.
pub(crate) struct Backend {
    /// Who judges tokens.
    pub(crate) authenticator: Arc<Authenticator>,
    /// Whom the workers send to.
    pub(crate) neighbours: Neighbours,
    /// Who releases effects, and therefore has to know each worker's Hub.
    pub(crate) releasers: [Recipient<RegisterHub>; 2],
    /// What the server tells about itself.
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves the connections of `listener`, with TLS if there are `certificates`: workers, each with its Hub, which is registered before the
/// worker accepts anything. Nothing happens until the returned server is polled.
///
/// # Errors
/// If the listener can't be used.
pub(crate) fn serve<C: Conversation>(
    listener: TcpListener,
    certificates: Option<Arc<Certificates>>,
    config: &Arc<Config>,
    backend: Backend,
) -> io::Result<Server> {
    let Backend {
        authenticator,
        neighbours,
        releasers,
        metrics,
    } = backend;
    let config = Arc::clone(config);
    let identities = Identities::new(config.limits.identity.rate, config.max_message_size);
    let gate = Gate::new(
        config.max_connections,
        config.limits.max_connections_per_address,
    );
    let gate = Arc::new(gate.with_identities(identities));
    metrics.accepts(Arc::clone(&gate));
    let readers = Readers::beside(config.metrics_listen);
    let next_worker = Arc::new(AtomicUsize::new(0));
    let server = Server::build()
        .workers(config.workers)
        .max_concurrent_connections(config.max_connections + MAX_HANDSHAKES)
        .disable_signals();
    let server = server.listen("infotainer", listener.into_std()?, move || {
        let number = next_worker.fetch_add(1, Relaxed);
        let (counts, gate) = (metrics.worker(), Arc::clone(&gate));
        let worker = Worker::new(
            number,
            &config,
            neighbours.clone(),
            Arc::clone(&authenticator),
            Arc::clone(&gate),
            counts,
        );
        let worker = Rc::new(worker);
        let hub = Hub::new(Rc::clone(&worker)).start();
        metrics.watch_hub(number, hub.clone().recipient(), hub.clone().recipient());
        let registration = RegisterHub {
            worker: number,
            hub,
            gate: Arc::clone(&gate),
        };
        // Without waiting: one for each worker.
        for releaser in &releasers {
            releaser.do_send(registration.clone());
        }
        let config = Arc::clone(&config);
        let api = Api::new::<C>(Rc::clone(&worker), Arc::clone(&config));
        let write_timeout = config.write_timeout;
        let accepting = accepting(
            Arc::clone(&gate),
            certificates.clone(),
            config.handshake_timeout,
        );
        let gate = Arc::clone(&gate);
        let http = HttpService::build()
            .client_request_timeout(config.handshake_timeout)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .keep_alive(KEEP_ALIVE)
            // Whoever has closed its side has gone: a stream of events would find out when it is written to.
            .h1_allow_half_closed(false)
            .on_connect_ext(move |socket: &Socket, extensions| {
                if let Err(error) = tune_accepted(socket, write_timeout) {
                    log::debug!("a connection has gone already: {error}");
                }
                extensions.insert(LinkPlace::default());
                extensions.insert(match socket {
                    Socket::Plain(tcp) => gate.enter(tcp.peer_addr().ok().map(|peer| peer.ip())),
                    // Of the server itself.
                    Socket::Inner(_) => gate.enter(None),
                    Socket::Tls(encrypted) => Rc::clone(&encrypted.permit),
                });
            })
            .upgrade(fn_service(move |(request, framed)| {
                upgrade::upgrade::<C>(&worker, &config, &request, framed);
                ready(Ok::<_, Infallible>(()))
            }))
            .finish(map_config(
                routes::app(
                    Arc::clone(&metrics),
                    readers,
                    Arc::clone(&authenticator),
                    api,
                ),
                |()| AppConfig::default(),
            ));
        accepting.and_then(http)
    })?;
    Ok(server.run())
}

/// From a TCP connection to one that HTTP is spoken over, with TLS if there are `certificates`; the handshake of that may take until `limit`.
fn accepting(
    gate: Arc<Gate>,
    certificates: Option<Arc<Certificates>>,
    limit: Duration,
) -> impl ServiceFactory<
    TcpStream,
    Config = (),
    Response = (Socket, Protocol, Option<SocketAddr>),
    Error = DispatchError,
    InitError = (),
> {
    fn_service(move |tcp: TcpStream| {
        let peer = tcp.peer_addr().ok();
        let encrypting = certificates.as_ref().map(|certificates| {
            let permit = gate.enter(peer.map(|peer| peer.ip()));
            (certificates.current(), permit)
        });
        async move {
            let socket = match encrypting {
                None => Socket::Plain(tcp),
                Some((config, permit)) => {
                    // On the heap, or connections without TLS would carry the size of its handshake.
                    Box::pin(accept::encrypt(tcp, config, permit, limit)).await?
                }
            };
            Ok::<_, DispatchError>((socket, Protocol::Http1, peer))
        }
    })
}
