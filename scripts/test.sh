#!/usr/bin/env bash
# Installs what the tests need and runs them all.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
if ! command -v psql >/dev/null || ! command -v openssl >/dev/null || ! command -v curl >/dev/null || [ ! -f /usr/share/java/postgresql.jar ]; then
  echo "Installing psql, curl and the JDBC driver…"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql-client libpostgresql-jdbc-java openssl curl >/dev/null
fi
if ! command -v prometheus >/dev/null; then
  echo "Installing Prometheus…"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
fi
# Clients of Python live in a folder of their own: the machine's Python is left as it is.
clients=$HOME/.cache/cnosdb/clients
if [ ! -x "$clients/bin/python" ] ||
  ! "$clients/bin/python" -c 'import psycopg, influxdb, influxdb_client, opentsdb, pyarrow, brotli, lz4, snappy, zstandard, moto.server, boto3' 2>/dev/null; then
  echo "Installing clients of Python…"
  python3 -m venv "$clients"
  "$clients/bin/pip" install --quiet 'psycopg[binary]>=3.1,<4' 'influxdb>=5.3,<6' 'influxdb-client>=1.50,<2' 'opentsdb-py>=0.6,<1' \
    'pyarrow<30' brotli lz4 python-snappy zstandard 'moto[server,s3]>=5,<6'
fi
export CNOSDB_CLIENTS_PYTHON=$clients/bin/python
# One feature set for binaries and tests, so that nothing is built twice.
cargo build --locked --workspace --all-targets
cargo test --locked --workspace "$@"
