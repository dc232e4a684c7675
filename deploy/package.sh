#!/usr/bin/env bash
# Builds the package for Debian: deploy/package.sh. Needs cargo-deb (cargo install cargo-deb --locked).
#
# Manual pages and completions are printed by the program itself, so that they can't be out of date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --locked
program=target/release/infotainer
made=target/package
rm -rf "$made"
mkdir -p "$made/man" "$made/completions"

"$program" man | gzip -9n >"$made/man/infotainer.1.gz"
# The commands of the help, between its headings.
commands=$("$program" --help | sed -n '/^Commands:/,/^Options:/s/^  \([a-z][a-z-]*\) .*/\1/p' | grep -vx help)
for command in $commands; do
    "$program" man "$command" | gzip -9n >"$made/man/infotainer-$command.1.gz"
done
"$program" completions bash >"$made/completions/infotainer"
"$program" completions zsh >"$made/completions/_infotainer"
"$program" completions fish >"$made/completions/infotainer.fish"

cargo deb --no-build --locked "$@"
