# The five things one does with this repository. Long steps show their progress.
.PHONY: run cluster test release print-target-dir

# Builds and starts the database: singleton, data in ./data, loopback. Prints the psql line.
run:
	@scripts/run.sh

# Builds and starts three nodes of one cluster on loopback; Ctrl-C stops them.
cluster:
	@scripts/cluster.sh

# Installs what tests need and passes them all.
test:
	@scripts/test.sh

# Builds the release binaries.
release:
	@bash -c '. scripts/env.sh && cargo build --release --locked --workspace --bins'

print-target-dir:
	@echo "$${CARGO_TARGET_DIR:-$$HOME/.cache/cnosdb/target}"
