#!/usr/bin/env bash
# Builds librocksdb.a of the locked version from the crate's own sources into the folder given.
# Takes 20 to 25 minutes on two cores; it is done once for a machine.
set -euo pipefail
to=$1
here=$(cd "$(dirname "$0")/.." && pwd)
build=$HOME/.cache/cnosdb/rocksdb-build
echo "Building RocksDB once for this machine (20 to 25 minutes on two cores)…"
cd "$here"
(
  # Every half minute a sign of life.
  while sleep 30; do
    echo "  … $(find "$build" -name '*.o' 2>/dev/null | wc -l) of about 345 files"
  done
) &
tick=$!
trap 'kill $tick 2>/dev/null || true' EXIT
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$build" \
  cargo build --release --locked -p librocksdb-sys --quiet
mkdir -p "$to"
found=$(find "$build" -name librocksdb.a | head -n 1)
cp "$found" "$to/librocksdb.a.new"
strip --strip-debug "$to/librocksdb.a.new"
mv "$to/librocksdb.a.new" "$to/librocksdb.a"
rm -rf "$build"
