#!/usr/bin/env bash
# Builds the database and starts three nodes of one cluster on loopback; Ctrl-C stops them.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
cargo build --release --locked --workspace --bins
folder=${CNOSDB_DATA_DIR:-./data/cluster}
mkdir -p "$folder"
if [ ! -f "$folder/secret" ]; then
  (umask 077 && head -c 32 /dev/urandom | base64 > "$folder/secret")
fi
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
trap 'exit 0' INT TERM
for node in 1 2 3; do
  join=()
  if [ "$node" -gt 1 ]; then join=(--join 127.0.0.1:8911); fi
  "$CARGO_TARGET_DIR/release/cnosdb" run --data-dir "$folder/node$node" --pg-addr "127.0.0.1:543$((1 + node))" \
    --http-addr "127.0.0.1:892$node" --rpc-addr "127.0.0.1:891$node" --cluster-secret-file "$folder/secret" \
    "${join[@]}" 2> "$folder/node$node.log" &
done
echo "Three nodes start; their logs are in $folder. Try: CREATE DATABASE d WITH REPLICA 3 SHARD 2"
wait
