#!/usr/bin/env bash
# Installs what the tests need and runs them all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
if ! command -v psql >/dev/null || ! command -v openssl >/dev/null || [ ! -f /usr/share/java/postgresql.jar ]; then
  echo "Installing psql and the JDBC driver…"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql-client libpostgresql-jdbc-java openssl >/dev/null
fi
if ! command -v prometheus >/dev/null; then
  echo "Installing Prometheus…"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi
# psycopg lives in a folder of its own: the machine's Python is left as it is.
clients=$HOME/.cache/cnosdb/clients
if [ ! -x "$clients/bin/python" ] || ! "$clients/bin/python" -c 'import psycopg' 2>/dev/null; then
  echo "Installing psycopg…"
  python3 -m venv "$clients"
  "$clients/bin/pip" install --quiet 'psycopg[binary]>=3.1,<4'
fi
export CNOSDB_CLIENTS_PYTHON=$clients/bin/python
# One feature set for binaries and tests, so that nothing is built twice.
cargo build --locked --workspace --all-targets
cargo test --locked --workspace "$@"
