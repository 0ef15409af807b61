#!/usr/bin/env bash
# Builds the database and starts it: data in ./data, on loopback, on the next free
# ports from 5432 (PostgreSQL) and 8902 (HTTP) on.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
cargo build --release --locked --workspace --bins
# Sets `port` to the first free one from $1 on.
free_port() {
  port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    echo "Port $port is taken, trying $((port + 1))."
    port=$((port + 1))
  done
}
free_port 5432
pg=127.0.0.1:$port
free_port 8902
exec "$CARGO_TARGET_DIR/release/cnosdb" run --data-dir "${CNOSDB_DATA_DIR:-./data}" --pg-addr "$pg" --http-addr "127.0.0.1:$port"
