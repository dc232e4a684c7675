#!/usr/bin/env bash
# Every check of this project, for everybody: format, lints, docs, dependencies, tests. Installs what is missing first.
#
# Needs Rust with cargo (https://rustup.rs) and, for what else is missing, a Debian or Ubuntu with root or sudo. Besides
# Rust it uses a C linker, a C++ compiler (for libFuzzer), Python (3.11 or newer) with what the conversation from Python, the client in
# Python and the cases of Autobahn need (in target/venv), for the client in TypeScript Node (18 or newer), npm, and Chromium or Chrome,
# and for power cuts mkfs.ext4 and mount.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }
fail() { printf 'check.sh: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "root is needed to run: $*"
    fi
}

debian_packages() {
    command -v apt-get >/dev/null || fail "missing, and there is no apt-get to install it with: $*"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

step "tools"
command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
command -v cc >/dev/null || debian_packages gcc libc6-dev
command -v c++ >/dev/null || debian_packages g++
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
cargo --version

# The tests that use it are left out without it.
command -v curl >/dev/null || debian_packages curl ca-certificates

venv="$PWD/target/venv"
python="$venv/bin/python"
if ! "$python" -c 'import websockets, cbor2' 2>/dev/null; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || debian_packages python3 python3-venv
    python3 -m venv --clear "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt
fi
"$python" --version
# The tests that talk from Python are left out without it; here they must run.
export INFOTAINER_TEST_PYTHON="$python"

command -v node >/dev/null || debian_packages nodejs
command -v npm >/dev/null || debian_packages npm
node --version
browser() { command -v chromium || command -v google-chrome; }
browser >/dev/null || debian_packages chromium
# The tests in a page are left out without it; here they must run.
CHROMIUM="$(browser)"
export CHROMIUM

# The power cuts are left out without them.
command -v mkfs.ext4 >/dev/null && command -v mount >/dev/null || debian_packages e2fsprogs mount

# Tests fill small file systems of their own, and leave out what can't be mounted.
command -v mount >/dev/null || debian_packages mount
PATH="$PATH:/usr/sbin:/sbin" command -v mkfs.ext4 >/dev/null || debian_packages e2fsprogs

if [ -n "${CI:-}" ]; then
    export CARGO_INCREMENTAL=0
fi

step "format"
cargo fmt --all -- --check
cargo fmt --manifest-path fuzz/Cargo.toml -- --check

step "clippy"
cargo clippy --all-targets --locked -- -D warnings
# The client has to build without the server.
cargo clippy --no-default-features --features client --locked -- -D warnings
cargo clippy --features conformance --example echo --locked -- -D warnings
cargo clippy --no-default-features --features fuzzing --locked -- -D warnings

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

step "dependencies"
if ! command -v cargo-deny >/dev/null; then
    [ -z "${GITHUB_ACTIONS:-}" ] || fail "cargo-deny is missing"
    echo "left out: cargo-deny is missing (cargo install cargo-deny --locked); the workflow runs it"
else
    cargo deny --offline check bans licenses sources
    if [ -n "${GITHUB_ACTIONS:-}" ] || cargo deny fetch db 2>/dev/null; then
        cargo deny check advisories
    else
        echo "left out: the advisory database can't be reached; the workflow checks it"
    fi
fi

step "tests"
# Most of them wait, for sockets or for the disk.
RUST_TEST_THREADS=$((2 * $(nproc))) cargo test --locked
# Each benchmark once, unoptimized: that it runs, not how fast.
cargo test --locked --bench micro

step "conformance"
# The report lies in target/conformance. Section 9, which is about limits and times, is run with --performance.
"$python" -m pip install --quiet --disable-pip-version-check -r tests/conformance/requirements.txt
cargo build --locked --features conformance --example echo
"$python" tests/conformance/run.py target/debug/examples/echo

step "http"
# Requests made from the description, each answer held to it.
"$python" -m pip install --quiet --disable-pip-version-check -r tests/http/requirements.txt
cargo build --locked
"$python" tests/http/run.py target/debug/infotainer

step "growth"
# Ten million publications: what they cost is told, and memory must not grow with them.
cargo build --profile quick --locked
"$python" benches/growth.py --check --infotainer target/quick/infotainer

# What the clients' tests say to the server and hear from it is held to the grammar behind them.
export INFOTAINER_TEST_FRAMES="$PWD/target/frames"
rm -rf "$INFOTAINER_TEST_FRAMES"
mkdir -p "$INFOTAINER_TEST_FRAMES"

step "python"
"$python" -m pip install --quiet --disable-pip-version-check -r clients/python/requirements.txt
(
    cd clients/python
    "$python" -m ruff format --check .
    "$python" -m ruff check .
    "$python" -m mypy
    "$python" -m pytest --quiet
)

step "side by side"
# The load generator is a project of its own, so that the server is built without it. Nothing is measured here.
(
    cd benches/wsload
    cargo fmt -- --check
    cargo clippy --all-targets --locked --target-dir ../../target -- -D warnings
    cargo test --locked --target-dir ../../target
)
"$python" -m ruff format --check --config clients/python/pyproject.toml benches
"$python" -m ruff check --config clients/python/pyproject.toml --ignore D1 benches
"$python" benches/side_by_side.py --help >/dev/null
"$python" benches/http.py --help >/dev/null

step "typescript"
cargo build --locked
(
    cd clients/typescript
    npm ci --ignore-scripts --no-audit --no-fund
    npm run check
)

step "frames"
cargo test --locked --test vectors frames
# They are large, and made again each time.
rm -rf "$INFOTAINER_TEST_FRAMES"

step "fuzzing"
# Each target searches for a minute. What was found before, the tests have run.
"$python" fuzz/run.py

step "all checks passed"
