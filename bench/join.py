#!/usr/bin/env python3
"""What writers notice of a cluster that changes: three nodes on this machine under paced writers, then a fourth node joins, one is
drained and removed, one is killed, loses its disk and joins anew. Prints how long writes took in each part, and checks every row.

    bench/join.py CNOSDB_BINARY [MILLIONS_OF_ROWS_BEFORE]
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

from nodes import free_port

WRITERS = 4
PAUSE = 0.02
ROWS = 20
SHARDS = 6
HOSTS = 500
QUIET = 30


class Cluster:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.nodes = binary, pathlib.Path(folder), []
        self.secret = self.folder / "secret"
        self.secret.write_text("s" * 32)
        self.settings = self.folder / "settings.toml"
        self.settings.write_text("[cluster]\nbalance_seconds = 5\nrebuild_seconds = 20\n")
        for _ in range(3):
            self.add()

    def add(self):
        """Starts another node, on an empty directory."""
        number, pg, rpc = len(self.nodes), free_port(), free_port()
        command = [self.binary, "run", "--config", str(self.settings), "--data-dir", str(self.folder / f"n{number}"), "--pg-addr", f"127.0.0.1:{pg}", "--http-addr", "127.0.0.1:0"]
        command += ["--rpc-addr", f"127.0.0.1:{rpc}", "--cluster-secret-file", str(self.secret)]
        command += ["--join", f"127.0.0.1:{self.nodes[0][2]}"] if self.nodes else []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout:
            if line.startswith("Ready"):
                break
        self.nodes.append((process, pg, rpc))

    def connect(self, number):
        return psycopg.connect(f"postgresql://root@127.0.0.1:{self.nodes[number][1]}/cnosdb", autocommit=True)


class Writer(threading.Thread):
    """Writes rows of its own, each once, and notes how long it took; tries again elsewhere where that is not known to be done."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster, self.number, self.use = cluster, number, [0, 1, 2]
        self.times, self.failed, self.written, self.over = [], [], 0, False

    def run(self):
        connection, at = None, self.number
        while not self.over:
            began = time.monotonic()
            rows = ", ".join(f"({self.written}, 'w{self.number}_{row}', {row})" for row in range(ROWS))
            while True:
                try:
                    connection = connection or self.cluster.connect(self.use[at % len(self.use)])
                    connection.execute(f"INSERT INTO b.w (time, host, v) VALUES {rows}")
                    break
                except psycopg.Error as error:
                    self.failed.append(str(error).splitlines()[0])
                    connection, at = None, at + 1
            self.written += 1
            self.times.append(time.monotonic() - began)
            time.sleep(max(0.0, PAUSE - (time.monotonic() - began)))


def part(name, writers, wait):
    for writer in writers:
        writer.times, writer.failed = [], []
    began = time.monotonic()
    wait()
    times = sorted(time for writer in writers for time in list(writer.times))
    failed = [error for writer in writers for error in writer.failed]
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1000
    print(f"{name}: {time.monotonic() - began:.0f} s, {len(times):,} writes, {len(failed)} tries failed; median {at(0.5):.1f} ms, p99 {at(0.99):.1f}, longest {times[-1] * 1000:.0f}", flush=True)
    for error in sorted(set(failed)):
        print(f"    {error}")


def until(done):
    while not done():
        time.sleep(0.5)


def main():
    binary, millions = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(binary, folder)
        admin = cluster.connect(0)
        admin.execute(f"CREATE DATABASE b WITH REPLICA 3 SHARD {SHARDS}")
        admin.execute("CREATE TABLE b.m (v DOUBLE, TAGS(host))")
        admin.execute("CREATE TABLE b.w (v BIGINT, TAGS(host))")
        steps = int(millions * 1_000_000 / HOSTS)
        admin.execute(f"INSERT INTO b.m (time, host, v) SELECT n * 1000000000, 'h' || h, n FROM generate_series(1, {HOSTS}) AS b(h), generate_series(1, {steps}) AS a(n)")
        writers = [Writer(cluster, number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()

        def vnodes():
            return admin.execute("SHOW VNODES").fetchall()

        def by_node(lines):
            nodes = [str(line[1]) for line in lines]
            return {node: nodes.count(node) for node in nodes}

        def are_even():
            lines = vnodes()
            settled = all(line[4] in ("joined", "founder") for line in lines)
            held, led = by_node(lines), by_node([line for line in lines if line[5] == "leader"])
            even = lambda counts: len(counts) == 4 and max(counts.values()) - min(counts.values()) <= 1
            return settled and len(lines) == 3 * SHARDS and even(held) and even(led)

        def has_none(node):
            return str(node) not in by_node(vnodes()) and len(vnodes()) == 3 * SHARDS

        part("three nodes", writers, lambda: time.sleep(QUIET))
        began = time.monotonic()
        cluster.add()
        part("a fourth node joins, until vnodes and leads are even", writers, lambda: until(are_even))
        part("four nodes", writers, lambda: time.sleep(QUIET))
        admin.execute("ALTER NODE 2 DRAIN")
        part("node 2 is drained", writers, lambda: until(lambda: has_none(2)))
        for writer in writers:
            writer.use = [0, 2, 3]
        admin.execute("REMOVE NODE 2")
        time.sleep(1)
        cluster.nodes[1][0].terminate()
        cluster.nodes[1][0].wait()
        part("node 2 is removed and stopped", writers, lambda: time.sleep(QUIET))
        for writer in writers:
            writer.use = [0, 3]
        time.sleep(1)
        cluster.nodes[2][0].kill()
        cluster.nodes[2][0].wait()
        shutil.rmtree(pathlib.Path(folder) / "n2")
        cluster.add()
        part("node 3 is killed, loses its disk and joins as node 5, until its vnodes are made anew", writers, lambda: until(lambda: has_none(3)))
        admin.execute("REMOVE NODE 3")
        for writer in writers:
            writer.over = True
        for writer in writers:
            writer.join()
        for writer in writers:
            expected = writer.written * ROWS
            rows = f"FROM b.w WHERE host LIKE 'w{writer.number}\\_%'"
            found = admin.execute(f"SELECT count(*), (SELECT count(*) FROM (SELECT DISTINCT time, host {rows}) AS d) {rows}").fetchone()
            assert found == (expected, expected), f"writer {writer.number}: {found} rows of {expected}"
        print(f"every row of {sum(writer.written for writer in writers) * ROWS:,} is there once")
        for process, _, _ in cluster.nodes:
            if process.poll() is None:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
