#!/usr/bin/env bash
# Builds the database and starts it: data in ./data, on loopback, on the next free port from 5432 on.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
cargo build --release --locked --workspace --bins
port=5432
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  echo "Port $port is taken, trying $((port + 1))."
  port=$((port + 1))
done
exec "$CARGO_TARGET_DIR/release/cnosdb" run --data-dir "${CNOSDB_DATA_DIR:-./data}" --pg-addr "127.0.0.1:$port"
