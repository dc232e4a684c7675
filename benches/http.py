"""What publishing over HTTP costs beside publishing over WebSocket: the same connections, payload and waiting, in turn.

    python benches/http.py target/release/infotainer [--connections 32] [--count 20000] [--rounds 3]

Each of the connections has one publication under way, as a back end's pool of connections has, and HTTP/1.1 keeps them alive. One thread
drives all of them, and what it sends is made beforehand; how many it can drive is part of the rates, so what the server's process
spent for a publication is told beside them. The server is the script's own, in a directory of TMPDIR, with `Written` as durability.
"""

import os
import re
import selectors
import socket
import statistics
import subprocess
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

PAYLOAD = b"x" * 100
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: subprocess.Popen) -> float:
    """What the process spent so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def http_request(host: str) -> bytes:
    """A publication as a request."""
    head = f"POST /v1/subscriptions/bench/publications HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(PAYLOAD) + PAYLOAD


def websocket_request() -> bytes:
    """A publication as a masked binary frame: [1, {"SubmitPublication": {"subscription_id": "bench", "submission": ...}}]."""
    message = (
        b"\x82\x01\xa1\x71SubmitPublication\xa2\x6fsubscription_id\x65bench\x6asubmission\x58"
        + bytes([len(PAYLOAD)])
        + PAYLOAD
    )
    return b"\x82\xfe" + len(message).to_bytes(2) + bytes(4) + message


def connect(address: tuple[str, int], is_http: bool) -> socket.socket:
    """A connection that can publish."""
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_http:
        head = f"GET /ws HTTP/1.1\r\nHost: {address[0]}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        connection.sendall((head + key).encode())
        said = connection.makefile("rb")
        while said.readline().strip():
            pass
        # `Welcome` is longer than 125 bytes and shorter than 65,536.
        said.read(int.from_bytes(said.read(4)[2:]))
    connection.setblocking(False)
    return connection


def run(address: tuple[str, int], is_http: bool, connections: int, count: int) -> float:
    """Publishes, and gives the seconds that it took."""
    request = http_request(f"{address[0]}:{address[1]}") if is_http else websocket_request()
    # One answer is one read: it is short, and only one is under way.
    good = re.compile(rb"HTTP/1\.1 201 " if is_http else rb"\x82.+Submitted", re.DOTALL)
    selector = selectors.EpollSelector()
    for _ in range(connections):
        selector.register(connect(address, is_http), selectors.EVENT_READ)
    sent = done = 0
    began = time.monotonic()
    for key in list(selector.get_map().values()):
        key.fileobj.send(request)
        sent += 1
    while done < count:
        ready = selector.select(10)
        assert ready, "no answer for 10 s"
        for key, _ in ready:
            answer = key.fileobj.recv(4096)
            assert good.match(answer), answer
            done += 1
            if sent < count:
                key.fileobj.send(request)
                sent += 1
    took = time.monotonic() - began
    for key in list(selector.get_map().values()):
        key.fileobj.close()
    return took


def main() -> None:
    """Measures both in turn, and prints a table."""
    parser = ArgumentParser(description="publishing over HTTP beside publishing over WebSocket")
    parser.add_argument("server", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"INFOTAINER_LISTEN": "127.0.0.1:0", "INFOTAINER_DURABILITY": "Written"}
        server = subprocess.Popen(
            [arguments.server.resolve()],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            found = re.search(r"://([\d.]+):(\d+)/ws", server.stdout.readline())
            assert found, "the server does not say where it listens"
            address = (found[1], int(found[2]))
            rates, costs = {True: [], False: []}, {True: [], False: []}
            for number in range(arguments.rounds + 1):
                for is_http in (False, True):
                    before = cpu_seconds(server)
                    took = run(address, is_http, arguments.connections, arguments.count)
                    spent = cpu_seconds(server) - before
                    # The first round warms up.
                    if number > 0:
                        rates[is_http].append(arguments.count / took)
                        costs[is_http].append(spent / arguments.count * 1e6)
        finally:
            server.terminate()
            server.wait(30)
    print("|  | a second | CPU of the server for one |")
    print("| --- | --- | --- |")
    for is_http, name in ((False, "WebSocket"), (True, "HTTP")):
        print(
            f"| {name} | {statistics.median(rates[is_http]):,.0f} | {statistics.median(costs[is_http]):.1f} us |"
        )
    print(
        f"\nHTTP / WebSocket: {statistics.median(rates[True]) / statistics.median(rates[False]):.2f} of the rate"
    )


if __name__ == "__main__":
    main()
