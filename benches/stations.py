#!/usr/bin/env python3
"""Measures what a publication costs the server at each station of its way: nanoseconds, allocations, system calls.

Prints tables in Markdown.

    cargo build --release && benches/stations.py [--count 2000000]

Needs root, and perf (Debian: linux-perf), which it installs if it is missing. Takes about a minute and 2 GB of disk; nothing else should
run meanwhile. The server has core 0 to itself, the load core 1.

Three runs for each load, on one server: one that is only timed, by which a publication costs so much CPU in all; one that is sampled, with
stacks, by which that is shared out; one in which calls into the kernel and of malloc are counted. So the nanoseconds are those of
a run without a profiler, and the counts are exact.
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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SERVER_CORE, LOAD_CORE = "0", "1"
LOAD_SECONDS = 300
SAMPLES_A_SECOND = "799"
LIBC = "/lib/x86_64-linux-gnu/libc.so.6"

# What stands anywhere in a stack, the first that fits.
STATIONS = [
    ("sealing and merging, in the background", r"datalog::(background|merge|seal)"),
    ("fdatasync", r"sys_fdatasync"),
    ("write of the batch", r"DataLogger.*pwrite|pwrite.*DataLogger"),
    ("batch put together, checksum, index", r"DataLog::write"),
    ("effects sorted by worker", r"DataLogger"),
    ("sequence, frame encoded once, effects", r"PubSubService"),
    ("read from the socket", r"sys_(recvfrom|readv?|recvmsg)\b|tcp_recvmsg"),
    ("written to the socket", r"sys_(writev?|sendto|sendmsg)\b|tcp_sendmsg"),
    ("answers and frames into outboxes", r"[Hh]ub|Worker::release|[Oo]utbox"),
    ("command decoded", r"protocol::(codec|scan)|serde_cbor"),
    ("frames cut out of what was read", r"FrameReader|session::Reader"),
    ("session: credit, forwarding, its actor", r"WebSocketSession|ConnectionTask"),
    ("waiting, waking, the runtime", r""),
]  # fmt: skip

# In this order they are met.
WAY = [6, 10, 9, 11, 5, 3, 2, 1, 4, 8, 7, 12, 0]

CALLS = [
    "recvfrom",
    "read",
    "readv",
    "writev",
    "sendto",
    "pwrite64",
    "fdatasync",
    "epoll_wait",
    "futex",
    "write",
]


def perf() -> None:
    """Sees that perf is there."""
    if shutil.which("perf") is None:
        if shutil.which("apt-get") is None or os.geteuid() != 0:
            raise SystemExit(
                "stations.py: perf is missing, and only root can install it (Debian: linux-perf)"
            )
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "linux-perf"], check=True
        )


@contextmanager
def server(program: str, folder: Path) -> Iterator[tuple[str, int]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFOTAINER_")}
    process = subprocess.Popen(
        ["taskset", "-c", SERVER_CORE, program, "serve", "--listen", "127.0.0.1:0", "--data-dir", folder / "data",
         "--log", "warn"],
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " listens on " not in line:
            raise SystemExit(f"stations.py: the server does not start: {line}")
        yield line.split()[-1], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run(before: Sequence[str], load: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Puts a load on the server, under what stands in front of it; its figures, and what was said on stderr."""
    command = [*before, "taskset", "-c", LOAD_CORE, *load]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS)
    if done.returncode != 0:
        raise SystemExit(f"stations.py: {' '.join(command)}: {done.stderr or done.stdout}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures, done.stderr


def stacks(samples: Iterable[str]) -> Iterator[str]:
    """The functions of each sample, the innermost first."""
    stack: list[str] = []
    for line in samples:
        if line.startswith("\t"):
            stack.append(line.split(None, 1)[1].strip() if " " in line.strip() else "")
        elif stack:
            yield "|".join(stack)
            stack = []
    if stack:
        yield "|".join(stack)


def station(stack: str) -> int:
    return next(place for place, (_, pattern) in enumerate(STATIONS) if re.search(pattern, stack))


def shares(data: Path) -> list[float]:
    script = ["perf", "script", "-i", str(data), "--no-inline", "-F", "comm,tid,ip,sym"]
    text = subprocess.run(script, capture_output=True, text=True, check=True, timeout=LOAD_SECONDS).stdout
    found = Counter(station(stack) for stack in stacks(text.splitlines()))
    samples = found.total()
    if samples < 500:
        raise SystemExit(f"stations.py: {samples} samples say nothing: take a larger --count")
    return [found[place] / samples for place in range(len(STATIONS))]


def counted(text: str) -> dict[str, int]:
    """What `perf stat -x,` says."""
    fields = (line.split(",") for line in text.splitlines())
    return {
        field[2].removeprefix("syscalls:sys_enter_"): int(field[0])
        for field in fields
        if len(field) > 2 and field[0].isdigit()
    }


def measure(name: str, done: str, load: Sequence[str], pid: int, folder: Path) -> None:
    """Prints the tables of one load; `done` is the figure by which to divide."""
    attached = ["-p", str(pid)]
    plain, _ = run([], load)
    nanoseconds = 1e9 / float(plain["server_cpu"]["per_cpu_second"])
    data = folder / "perf.data"
    run(
        [
            "perf",
            "record",
            "-q",
            "-o",
            str(data),
            "-F",
            SAMPLES_A_SECOND,
            "--call-graph",
            "dwarf,16384",
            *attached,
            "--",
        ],
        load,
    )
    parts = shares(data)
    events = [f"syscalls:sys_enter_{call}" for call in CALLS] + [
        "raw_syscalls:sys_enter",
        "probe_libc:malloc",
    ]
    events += ["probe_libc:calloc", "probe_libc:realloc"]
    figures, said = run(["perf", "stat", "-x,", "-e", ",".join(events), *attached, "--"], load)
    counts = counted(said)

    print(f"\n{name}: {nanoseconds:,.0f} ns of the server's CPU each\n")
    print("| station | ns | share |\n| --- | --- | --- |")
    for place in WAY:
        if parts[place] >= 0.0005:
            print(f"| {STATIONS[place][0]} | {parts[place] * nanoseconds:,.0f} | {parts[place]:.1%} |")
    of_each = {what: count / float(figures[done]) for what, count in counts.items()}
    allocations = sum(of_each.get(f"probe_libc:{call}", 0) for call in ["malloc", "calloc", "realloc"])
    print(
        f"\nAllocations: {allocations:.3f} each. System calls: {of_each['raw_syscalls:sys_enter']:.3f} each",
        end="",
    )
    calls = sorted(((of_each[call], call) for call in CALLS if call in of_each), reverse=True)
    print(f" ({', '.join(f'{call} {count:.4f}' for count, call in calls if count >= 0.0001)}).")


@contextmanager
def probes() -> Iterator[None]:
    """Lets perf see the C library's allocator."""
    calls = ["malloc", "calloc", "realloc"]
    try:
        for call in calls:
            subprocess.run(["perf", "probe", "-q", "-f", "-x", LIBC, call], check=True, capture_output=True)
        yield
    finally:
        for call in calls:
            subprocess.run(
                ["perf", "probe", "-q", "-d", f"probe_libc:{call}"], check=False, capture_output=True
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--infotainer", default=str(PROJECT / "target/release/infotainer"))
    parser.add_argument("--count", type=int, default=2_000_000, help="publications of each load")
    arguments = parser.parse_args()
    perf()
    folder = Path(tempfile.mkdtemp(prefix="stations-"))
    try:
        with probes(), server(arguments.infotainer, folder) as (url, pid):
            bench = [arguments.infotainer, "bench"]
            common = ["--server", url, "--json", "--pid", str(pid), "--count"]
            loads = [
                ("Publications, 64 publishers x 32 in flight, Synced", "acknowledged", ["pub", "--durability", "Synced"], 1),
                ("Publications, one at a time, Synced", "acknowledged",
                 ["pub", "--durability", "Synced", "--publishers", "1", "--in-flight", "1"], 100),
                ("Deliveries to 1,000 subscribers, Synced", "deliveries",
                 ["fanout", "--durability", "Synced", "--subscribers", "1000"], 50),
            ]  # fmt: skip
            for name, done, load, less in loads:
                measure(name, done, [*bench, *load, *common, str(arguments.count // less)], pid, folder)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
