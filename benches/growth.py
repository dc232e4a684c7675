#!/usr/bin/env python3
"""Measures how a server grows: with what it stores, with its subscriptions, with its connections. Prints tables in Markdown.

    cargo build --release && benches/growth.py [--stored 1M,10M] [--subscriptions 1,1k,100k] [--connections 10,1k,10k]

100M stored publications take some minutes and 30 GB of disk; the default takes about a minute and 3 GB. TMPDIR names another disk.

Each row is a server of its own with an empty data directory. What is stored is published Synced by 64 connections with 32 in flight,
128 bytes each; then the server is killed with SIGKILL and started again on what it left. "Memory" is what is resident.
The last line is the slope: what so many more cost, as the difference of the last two rows says.

With --check it ends with 1 if memory grows with what is stored. Times are told and never judged.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
START_SECONDS = 120
LOAD_SECONDS = 3600
# Sealing and merging what a load left takes less.
SETTLE_SECONDS = 600

# Publications over all subscriptions of a row, by turns.
SPREAD = 1_000_000

THOUSAND, MILLION = 1_000, 1_000_000

# What --check allows: bytes of memory for each publication stored.
MEMORY_EACH = 8


class Server:
    """A server on a data directory that outlives it."""

    def __init__(self, program: str, data: Path) -> None:
        self.program = program
        self.data = data
        self.start()

    def start(self) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("INFOTAINER_")
        }
        self.log = (self.data.parent / "said").open("wb")
        began = time.monotonic()
        self.process = subprocess.Popen(
            [
                self.program, "serve", "--listen", "127.0.0.1:0", "--data-dir", self.data,
                "--max-connections", "10100", "--log", "warn",
            ],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.start_seconds = time.monotonic() - began
        if " listens on " not in line:
            self.stop(signal.SIGKILL)
            said = (self.data.parent / "said").read_text(errors="replace")[-600:]
            raise SystemExit(f"growth.py: the server does not start: {line}{said}")
        self.url = line.split()[-1]
        recovered = [self.process.stdout.readline() for _ in range(2)][-1]
        replayed = re.search(r"(\d+) journal batches replayed", recovered)
        self.replayed = int(replayed[1]) if replayed else 0

    def bench(self, *arguments: str) -> dict[str, Any]:
        command = [self.program, "bench", *arguments, "--server", self.url, "--json"]
        command += ["--pid", str(self.process.pid), "--timeout", f"{LOAD_SECONDS}s"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS + 60)
        if done.returncode != 0:
            raise SystemExit(f"growth.py: {' '.join(command)}: {done.stderr or done.stdout}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    def status(self, what: str) -> int:
        """Bytes of memory, by the kernel's name for it."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+) kB", text, re.M)
        assert found, f"no {what}"
        return int(found[1]) * 1024

    def resident(self) -> int:
        return self.status("VmRSS")

    def settle(self) -> None:
        """Waits until background work is done: two seconds in which the process used next to no time."""
        until = time.monotonic() + SETTLE_SECONDS
        before = self.cpu_seconds()
        while time.monotonic() < until:
            time.sleep(2)
            now = self.cpu_seconds()
            if now - before < 0.02:
                return
            before = now
        raise SystemExit("growth.py: the server does not come to rest")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, how: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.log.close()


@contextmanager
def server(program: str) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="growth-"))
    running = None
    try:
        running = Server(program, folder / "data")
        yield running
    finally:
        if running is not None:
            running.stop(signal.SIGKILL)
        shutil.rmtree(folder)


def on_disk(data: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in data.rglob("*") if path.is_file())


def microseconds_of_cpu(figures: dict[str, Any]) -> float:
    return 1e6 / float(figures["server_cpu"]["per_cpu_second"])


Row = dict[str, float]


def stored(program: str, count: int) -> Row:
    with server(program) as running:
        load = running.bench(
            "pub", "--count", str(count), "--durability", "Synced", "--subscription", "stored", "--keep"
        )
        row: Row = {
            "count": count,
            "per_second": load["acknowledged_per_second"],
            "cpu": microseconds_of_cpu(load),
            "p99": load["latency_us"]["p99"] / 1000,
            "loaded": running.resident(),
        }
        running.stop(signal.SIGKILL)
        running.start()
        row |= {"killed": running.start_seconds, "replayed": running.replayed}
        row["resident"] = running.resident()
        running.settle()
        row["settled"] = running.resident()
        row["disk"] = on_disk(running.data)
        return row


def subscribed(program: str, count: int) -> Row:
    with server(program) as running:
        load = running.bench(
            "pub", "--count", str(SPREAD), "--subscriptions", str(count),
            "--durability", "Synced", "--subscription", "many", "--keep",
        )  # fmt: skip
        row: Row = {"count": count, "cpu": microseconds_of_cpu(load)}
        running.stop(signal.SIGKILL)
        running.start()
        row["killed"] = running.start_seconds
        running.settle()
        row["settled"] = running.resident()
        return row


def connected(program: str, count: int) -> Row:
    with server(program) as running:
        idle = running.bench("idle", "--connections", str(count), "--each", "10", "--subscriptions", "1000")
        return {
            "count": count,
            "before": idle["resident_bytes_before"],
            "settled": idle["resident_bytes"],
            "idle": idle["cpu_seconds"],
        }


def slope(rows: Sequence[Row], key: str, more: int = 1) -> float:
    """What so many more cost, from the row before the last to the last."""
    if len(rows) < 2:
        return 0.0
    before, last = rows[-2:]
    return more * (last[key] - before[key]) / (last["count"] - before["count"])


def mebibytes(bytes_: float) -> str:
    return f"{bytes_ / (1 << 20):,.1f} MiB"


def table(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]], last: Sequence[str]) -> None:
    print(f"\n{title}\n")
    print("| " + " | ".join(heads) + " |")
    print("| " + " | ".join("---" for _ in heads) + " |")
    for line in [*lines, last]:
        print("| " + " | ".join(line) + " |")


def number(text: str) -> int:
    found = re.fullmatch(r"(\d+)([kM]?)", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number like 100, 10k or 1M")
    return int(found[1]) * {"": 1, "k": 1000, "M": 1_000_000}[found[2]]


def numbers(text: str) -> list[int]:
    return [number(part) for part in text.split(",") if part]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--infotainer", default=str(PROJECT / "target/release/infotainer"))
    parser.add_argument("--stored", type=numbers, default="1M,10M")
    parser.add_argument("--subscriptions", type=numbers, default="1,1k,100k")
    parser.add_argument("--connections", type=numbers, default="10,1k,10k")
    parser.add_argument("--check", action="store_true", help="end with 1 if something grows that must not")
    arguments = parser.parse_args()
    program = arguments.infotainer

    rows = [stored(program, count) for count in arguments.stored]
    table(
        "Stored publications, in one subscription",
        ["stored", "acknowledged/s", "CPU each", "p99", "start after kill -9", "batches replayed",
         "memory after it", "memory at rest", "disk each"],
        [
            [
                f"{row['count']:,.0f}", f"{row['per_second']:,.0f}", f"{row['cpu']:.2f} us", f"{row['p99']:.1f} ms",
                f"{row['killed']:.2f} s", f"{row['replayed']:,.0f}", mebibytes(row["resident"]),
                mebibytes(row["settled"]), f"{row['disk'] / row['count']:,.0f} B",
            ]
            for row in rows
        ],
        ["each million more", "", f"{slope(rows, 'cpu', MILLION) * 1000:+,.0f} ns", "",
         f"{slope(rows, 'killed', MILLION) * 1000:+,.1f} ms", "", "",
         f"{slope(rows, 'settled', MILLION) / 1024:+,.0f} KiB", f"{slope(rows, 'disk'):,.0f} B"],
    )  # fmt: skip
    grown = []
    for pair in pairwise(rows):
        memory = slope(pair, "settled")
        if memory > MEMORY_EACH:
            grown.append(f"{memory:.1f} bytes of memory for each stored publication, not {MEMORY_EACH}")

    rows = [subscribed(program, count) for count in arguments.subscriptions]
    table(
        f"Subscriptions, with {SPREAD:,} publications in all",
        ["subscriptions", "CPU for a publication", "start after kill -9", "memory at rest"],
        [
            [f"{row['count']:,.0f}", f"{row['cpu']:.2f} us", f"{row['killed']:.2f} s", mebibytes(row["settled"])]
            for row in rows
        ],
        ["each thousand more", f"{slope(rows, 'cpu', THOUSAND) * 1000:+,.0f} ns", f"{slope(rows, 'killed', THOUSAND) * 1000:+,.1f} ms",
         f"{slope(rows, 'settled'):+,.0f} B each"],
    )  # fmt: skip

    rows = [connected(program, count) for count in arguments.connections]
    table(
        "Connections, each with 10 of 1,000 subscriptions",
        ["connections", "memory", "CPU in 5 idle seconds"],
        [
            [f"{row['count']:,.0f}", mebibytes(row["settled"]), f"{row['idle']:.2f} s"]
            for row in rows
        ],
        ["each thousand more", f"{slope(rows, 'settled'):+,.0f} B each", f"{slope(rows, 'idle', THOUSAND) * 1000:+,.1f} ms"],
    )  # fmt: skip
    for what in grown if arguments.check else []:
        print(f"growth.py: {what}", file=sys.stderr)
    return int(bool(grown) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
