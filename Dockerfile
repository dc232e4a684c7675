# infotainer in a container. Data lies in the volume /data, the port is 8949.
#
#   docker build -t infotainer .
#   docker run -p 127.0.0.1:8949:8949 -v infotainer:/data -e INFOTAINER_ALLOW_ANONYMOUS=true infotainer
#
# What a wider port wants, credentials and TLS, is in docs/operations.md.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# It is in the program, which serves it.
COPY docs/openapi.json docs/
# Benchmarks and examples are named in Cargo.toml, which has to find them.
COPY benches/micro benches/micro
COPY examples examples
RUN cargo build --release --locked --bin infotainer

FROM debian:bookworm-slim
# For the commands of the client, which trust over wss:// whom the system trusts.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 8949 --user-group --no-create-home --shell /usr/sbin/nologin infotainer \
    && install -d -o infotainer -g infotainer -m 0700 /data
COPY --from=build /src/target/release/infotainer /usr/bin/infotainer
USER infotainer
# Inside of the container all addresses; which of the machine's lead there is said by docker run -p.
ENV INFOTAINER_LISTEN=0.0.0.0:8949 INFOTAINER_DATA_DIR=/data
VOLUME /data
EXPOSE 8949
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["infotainer", "health"]
ENTRYPOINT ["infotainer"]
CMD ["serve"]
