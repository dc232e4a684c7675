#!/usr/bin/env python3
"""Builds the fuzz targets, and lets each search for a while.

    fuzz/run.py                           every target for a minute, two at a time: what every check does
    fuzz/run.py --seconds 600 journal     one target for longer

Needs Rust and a C++ compiler. What is searched is kept in target/fuzz/corpus; it begins with the seeds, with docs/vectors, and with what
was found once. A finding is an input, and ends its target's search: it is left in target/fuzz/findings, and belongs into
fuzz/regressions, where `cargo test` runs it from then on.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parent
WORK = ROOT / "target" / "fuzz"
TARGETS = ["codec", "frames", "journal", "sealed", "directory"]

# What libFuzzer is told by: which edges are passed how often, and what is compared with what.
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
# An input that takes so long, in seconds, is a finding; so is one for which a target takes so much memory, in MiB.
SLOWEST = 10
LARGEST = 1024


def build(sanitizer: str) -> Path:
    """Builds every target. Gives the folder that they are in."""
    flags = COVERAGE + ["--cfg", "fuzzing"]
    environment = dict(os.environ)
    if sanitizer != "none":
        flags.append(f"-Zsanitizer={sanitizer}")
        # The sanitizers come with every compiler; only the word for them does not.
        environment["RUSTC_BOOTSTRAP"] = "1"
    environment["RUSTFLAGS"] = " ".join(flags)
    environment["CARGO_TARGET_DIR"] = str(WORK / sanitizer)
    host = re.search(r"^host: (.+)$", output("rustc", "-vV"), re.MULTILINE)[1]
    # With a target named, what runs while building is built without all this.
    command = ["cargo", "build", "--release", "--locked", "--bins", "--target", host]
    subprocess.run(command, cwd=FUZZ, env=environment, check=True)
    return WORK / sanitizer / host / "release"


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seeds(target: str) -> list[bytes]:
    """What a search begins with."""
    lines = (FUZZ / "seeds" / f"{target}.hex").read_text().splitlines()
    found = [bytes.fromhex(line) for line in lines if not line.startswith("#")]
    regressions = FUZZ / "regressions" / target
    if regressions.is_dir():
        found += [path.read_bytes() for path in sorted(regressions.iterdir())]
    if target == "codec":
        for path in sorted((ROOT / "docs" / "vectors").glob("*.json")):
            found += [bytes.fromhex(vector["hex"]) for vector in json.loads(path.read_text())["vectors"]]
    return found


class Search:
    """One target's search, and what it came to."""

    def __init__(self, target: str, binaries: Path, seconds: int, extra: list[str]):
        self.target = target
        self.program = binaries / target
        self.corpus = WORK / "corpus" / target
        self.findings = WORK / "findings" / target
        self.log = WORK / f"{target}.log"
        self.seconds = seconds
        self.extra = extra

    def prepare(self) -> None:
        self.corpus.mkdir(parents=True, exist_ok=True)
        self.findings.mkdir(parents=True, exist_ok=True)
        for seed in seeds(self.target):
            (self.corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)

    def command(self) -> list[str]:
        dictionary = FUZZ / f"{self.target}.dict"
        return [
            str(self.program),
            f"-max_total_time={self.seconds}",
            f"-timeout={SLOWEST}",
            f"-rss_limit_mb={LARGEST}",
            f"-artifact_prefix={self.findings}/",
            "-print_final_stats=1",
            "-verbosity=1",
            *([f"-dict={dictionary}"] if dictionary.exists() else []),
            *self.extra,
            str(self.corpus),
        ]

    def run(self) -> bool:
        """Whether nothing was found."""
        self.prepare()
        # In memory where there is such a folder; what is left there goes with it.
        memory = Path("/dev/shm")
        with (
            tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
            self.log.open("w") as log,
        ):
            begun = time.monotonic()
            environment = dict(os.environ, TMPDIR=folder)
            # Beyond its own limit it is stuck.
            limit = self.seconds + 120
            try:
                done = subprocess.run(
                    self.command(), cwd=WORK, env=environment, stdout=log, stderr=log, timeout=limit
                )
                code = done.returncode
            except subprocess.TimeoutExpired:
                code = -1
            took = time.monotonic() - begun
        self.tell(code, took)
        return code == 0

    def tell(self, code: int, took: float) -> None:
        text = self.log.read_text(errors="replace")
        executions = re.findall(r"^stat::number_of_executed_units:\s*(\d+)", text, re.MULTILINE)
        coverage = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/", text)
        number = executions[-1] if executions else "?"
        edges, features, inputs = coverage[-1] if coverage else ("?",) * 3
        line = f"{self.target}: {number} executions in {took:.0f} s, {edges} edges, {features} features, {inputs} inputs"
        with TELLING:
            print(line if code == 0 else f"{line}: FAILED", flush=True)
            if code == 0:
                return
            print("\n".join(text.splitlines()[-60:]))
            print(f"\nthe whole of it is in {self.log}; the input is in {self.findings}. Once it is mended:")
            print(f"    mkdir -p fuzz/regressions/{self.target}")
            print(f"    cp {self.findings}/... fuzz/regressions/{self.target}/what-it-was", flush=True)


TELLING = threading.Lock()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="one of: " + ", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="how long each searches")
    parser.add_argument("--at-once", type=int, default=2, help="how many do at the same time")
    parser.add_argument("--sanitizer", default="none", choices=["none", "address"])
    parser.add_argument("--flag", action="append", default=[], help="a flag for libFuzzer, such as --flag=-seed=1")
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - set(TARGETS)
    if unknown:
        parser.error(f"not a target: {', '.join(unknown)}")
    binaries = build(arguments.sanitizer)
    targets = arguments.targets or TARGETS
    searches = [Search(target, binaries, arguments.seconds, arguments.flag) for target in targets]
    with ThreadPoolExecutor(arguments.at_once) as pool:
        whole = list(pool.map(Search.run, searches))
    return 0 if all(whole) else 1


if __name__ == "__main__":
    sys.exit(main())
