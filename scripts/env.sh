# Sets what every cargo call of the project needs; to be sourced: `. scripts/env.sh`.
# RocksDB is compiled once, not per profile: its static library is kept under ~/.cache/cnosdb.

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/cnosdb/target}"
_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
_version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = "[^+]*+\(.*\)"$/\1/p}' "$_here/../Cargo.lock")
export ROCKSDB_LIB_DIR="$HOME/.cache/cnosdb/rocksdb-$_version-$(uname -m)-linux-gnu"
export ROCKSDB_STATIC=1

# bindgen reads RocksDB's header with libclang.
if ! ls /usr/lib/llvm-*/lib/libclang*.so* 2>/dev/null | grep -qv -- '-cpp'; then
  echo "Installing libclang (RocksDB's bindings need it)…"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libclang-dev >/dev/null
fi

if [ ! -f "$ROCKSDB_LIB_DIR/librocksdb.a" ]; then
  "$_here/build-rocksdb.sh" "$ROCKSDB_LIB_DIR" || return 1
fi
unset _here _version
