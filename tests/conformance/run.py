"""Autobahn's cases against the server's own connections (`examples/echo.rs`).

    python tests/conformance/run.py target/debug/examples/echo [--performance]

Sections 1 to 7 and 10, which are about behaviour; with `--performance` section 9 instead, which is about limits and times. Sections 12 and 13
are about compression, which is not negotiated. Every case has to pass. Where its verdict is not a plain "OK", the case and the reason stand
below: a verdict that is not written down here fails the run, and so does one that is written down and no longer given.

The report (HTML, JSON, summary.txt) lies in target/conformance.
"""

import asyncio
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult
from kosoku._report import write_reports

REPORTS = Path(__file__).parents[2] / "target/conformance"

# The sections, and how many cases they have: less would mean that something was left out unseen.
BEHAVIOUR = ([f"{section}.*" for section in (1, 2, 3, 4, 5, 6, 7, 10)], 247)
PERFORMANCE = (["9.*"], 54)

# What a run may take at most. Seconds; a few suffice.
PATIENCE = 180

CASES_AT_A_TIME = 4

# Cases that are allowed another verdict than OK, and why.
REASONS = {
    "7.1.6": ("INFORMATIONAL", "RFC 6455 does not say how much is answered of what comes at once with a Close"),
    "7.13.1": ("INFORMATIONAL", "RFC 6455 does not say what a Close with 5000 means; it is answered with 1002"),
    "7.13.2": ("INFORMATIONAL", "RFC 6455 does not say what a Close with 65535 means; it is answered with 1002"),
}


async def run(url: str, cases: Sequence[str]) -> list[CaseResult]:
    """The results of these cases, whatever they are."""
    try:
        return await run_fuzzingclient(url, cases, concurrency=CASES_AT_A_TIME)
    except FailureError as failure:
        return failure.results


def verdict(result: CaseResult) -> str:
    """One word for how a case and its closing handshake went."""
    behaviour, close = result.behavior.value, result.behavior_close.value
    return behaviour if close in ("OK", behaviour) else f"{behaviour}, close {close}"


def judge(results: Sequence[CaseResult], wanted: int) -> tuple[list[str], list[str]]:
    """What is to be said about the results, and what is wrong with them."""
    verdicts = {result.case_id: verdict(result) for result in results}
    plain = sum(verdict == "OK" for verdict in verdicts.values())
    said = [f"{plain} of {len(verdicts)} cases are OK"]
    wrong = [] if len(verdicts) == wanted else [f"{len(verdicts)} cases were run, not {wanted}"]
    for result in results:
        given = verdicts[result.case_id]
        allowed, reason = REASONS.get(result.case_id, ("OK", ""))
        if given != allowed:
            wrong.append(f"{result.case_id} is {given}, not {allowed}: {result.result} {result.result_close}")
        elif reason:
            said.append(f"{result.case_id} is {given}: {reason}")
    return said, wrong


def main() -> int:
    parser = ArgumentParser(description="Autobahn's cases against the server's own connections")
    parser.add_argument("echo", type=Path, help="the program of examples/echo.rs")
    parser.add_argument("--performance", action="store_true", help="section 9 instead of the others")
    arguments = parser.parse_args()
    cases, wanted = PERFORMANCE if arguments.performance else BEHAVIOUR
    reports = REPORTS / ("performance" if arguments.performance else "behaviour")
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)

    complaints = reports / "stderr.txt"
    with complaints.open("w") as stderr:
        echo = subprocess.Popen([arguments.echo], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        assert echo.stdout is not None
        url = echo.stdout.readline().strip()
        results = asyncio.run(asyncio.wait_for(run(url, cases), PATIENCE))
    finally:
        echo.kill()
        echo.wait()

    write_reports(results, str(reports))
    said, wrong = judge(results, wanted)
    # It says nothing unless it panics, which a case may take for a connection that was dropped as it should.
    if complaints.stat().st_size > 0:
        wrong.append(f"the echo complained: see {complaints}")
    summary = "\n".join(said + wrong)
    (reports / "summary.txt").write_text(summary + "\n")
    print(summary)
    print(f"the report is in {reports}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
