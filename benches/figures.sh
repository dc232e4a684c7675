#!/usr/bin/env bash
# Measures the figures of docs/performance.md on this machine: starts servers on free ports with data directories of their own,
# puts the loads of `infotainer bench` on them, and says what came out. Takes some 15 minutes and about 4 GB of disk, and ends by
# itself. Nothing else should run meanwhile.
#
#   cargo build --release && benches/figures.sh [SECTION ...]
#
# Sections: publish fanout latency sealing slow idle tls replay restart many (by default all; tls needs openssl). INFOTAINER names another binary, TMPDIR
# another disk, DURATION another time for each load of latency, sealing and slow.
set -euo pipefail
cd "$(dirname "$0")/.."

infotainer=${INFOTAINER:-target/release/infotainer}
folder=$(mktemp -d)
pid=
# Only what this script sets may set the servers.
unset "${!INFOTAINER_@}"

end() {
    if [[ -n $pid ]]; then
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap end EXIT

# Starts a server on data directory $1 with the flags that follow. Sets pid, INFOTAINER_URL, and start_ms: from the call
# of the program to the line by which it says that it listens.
start() {
    local data=$folder/$1 began=$EPOCHREALTIME line
    shift
    rm -f "$folder/said"
    mkfifo "$folder/said"
    "$infotainer" serve --listen 127.0.0.1:0 --log warn --data-dir "$data" "$@" >"$folder/said" &
    pid=$!
    exec 3<"$folder/said"
    read -r line <&3
    start_ms=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
    export INFOTAINER_URL=${line##* }
}

# Ends the server with signal $1.
stop() {
    kill "-$1" "$pid"
    wait "$pid" 2>/dev/null || true
    pid=
    exec 3<&-
}

bench() {
    echo "--- infotainer bench $*"
    "$infotainer" bench "$@" --pid "$pid" 2>/dev/null
}

resident_kib() {
    awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"
}

publish() {
    start publish
    bench pub --publishers 1 --in-flight 1 --duration 3s --durability Synced
    bench pub --durability Synced
    bench pub --durability Written
    bench pub --durability Memory
    bench pub --durability Synced --size 4KiB
    stop TERM
}

fanout() {
    start fanout
    bench fanout --subscribers 100 --durability Synced
    bench fanout --subscribers 1000 --durability Synced
    bench fanout --subscribers 1000 --durability Memory
    bench fanout --subscribers 1000 --durability Memory --window 1
    bench fanout --subscribers 5000 --durability Memory
    stop TERM
}

latency() {
    start latency
    local durability
    for durability in Synced Written Memory; do
        bench latency --rate 1000 --subscribers 100 --duration "${DURATION:-20s}" --durability "$durability"
    done
    stop TERM
}

# Full journals are sealed meanwhile: what a stop of some milliseconds does is seen in an open loop alone.
sealing() {
    start sealing
    local rate
    for rate in 100000 300000; do
        bench pub --rate "$rate" --publishers 8 --duration "${DURATION:-30s}" --durability Synced
    done
    stop TERM
}

# Says how long publications take to those who read: load $1 without any peers, then beside those of each of the flags that follow.
beside() {
    local load peers
    read -ra load <<<"$1"
    shift
    bench latency "${load[@]}"
    for peers in "$@"; do
        # shellcheck disable=SC2086 # They are several words.
        bench latency "${load[@]}" $peers
    done
}

slow() {
    start slow
    # One that reads nothing is given up after 35 s.
    beside "--subscribers 1000 --rate 100 --size 1KiB --duration ${DURATION:-60s}" "--stalled 1"
    beside "--subscribers 2 --rate 1000 --size 50000 --durability Written --duration ${DURATION:-20s}" "--slow 1 --slow-rate 1000"
    beside "--subscribers 100 --rate 1000 --duration ${DURATION:-20s}" "--half-open 10" "--stalled 10" "--deaf 1" "--deaf 10"
    stop TERM
}

idle() {
    start idle --max-connections 10100
    bench idle --connections 10000 --subscriptions 100
    stop TERM
}

# The same loads without TLS and with it.
tls() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
        -addext basicConstraints=critical,CA:FALSE -keyout "$folder/tls.key" -out "$folder/tls.crt" 2>/dev/null
    local encrypted=(--tls-cert "$folder/tls.crt" --tls-key "$folder/tls.key") flags
    for flags in "" "${encrypted[*]}"; do
        # shellcheck disable=SC2086 # They are several words, or none.
        start "tls${flags:+-encrypted}" --max-connections 10100 $flags
        export INFOTAINER_CA=$folder/tls.crt
        bench fanout --subscribers 100 --durability Memory
        bench fanout --subscribers 100 --durability Memory --window 1
        bench pub --durability Memory
        bench idle --connections 10000 --subscriptions 100
        stop TERM
    done
    unset INFOTAINER_CA
}

replay() {
    start replay
    bench pub --count 1000000 --durability Written --subscription stored --keep
    bench replay --subscription stored
    bench replay --subscription stored --subscribers 10
    stop TERM
}

restart() {
    start restart
    bench pub --count 1000000 --subscription stored --keep
    stop KILL
    start restart
    echo "1,000,000 publications in one subscription, after kill -9: listening after $start_ms ms"
    stop TERM
    start restart
    echo "the same, after SIGTERM: listening after $start_ms ms"
    stop TERM
}

# Says what a subscription costs: $1 of them on data directory $2, above an empty server.
cost_of_each() {
    start "$2"
    local full
    full=$(resident_kib)
    echo "after a restart: listening after $start_ms ms, $full KiB resident, $(((full - empty) * 1024 / $1)) bytes a subscription"
    # What was left in journals is sealed and merged meanwhile.
    sleep 20
    full=$(resident_kib)
    echo "20 s later: $full KiB resident, $(((full - empty) * 1024 / $1)) bytes a subscription"
    stop TERM
}

many() {
    start empty
    empty=$(resident_kib)
    stop TERM
    echo "an empty server: $empty KiB resident"

    start quiet
    bench pub --count 100000 --subscriptions 100000 --subscription quiet --keep
    stop TERM
    cost_of_each 100000 quiet

    start many
    bench pub --count 1000000 --subscriptions 100000 --subscription many --keep
    bench pub --count 1000000 --subscription one --keep
    echo "after the load: $(resident_kib) KiB resident"
    stop KILL
    echo "kill -9"
    cost_of_each 100001 many
    cost_of_each 100001 many
}

"$infotainer" --version
for section in "${@:-publish fanout latency sealing slow idle tls replay restart many}"; do
    for name in $section; do
        echo "=== $name"
        "$name"
    done
done
