#!/usr/bin/env python3
"""What vnodes cost that nobody uses: makes many replica sets with a few rows each on nodes of this machine, waits until all of them
sleep, measures the CPU that the nodes take for a minute, stops them, and measures how long a start takes.

    bench/idle.py CNOSDB_BINARY NODES REPLICA_SETS

With three nodes every set has three replicas, so that each node holds one vnode of each set.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import psycopg

from nodes import cpu_seconds, free_port

SHARDS = 50
HOSTS = 1_000
MINUTE = 60


def start(binary, folder, count, ports):
    servers = []
    settings = pathlib.Path(folder) / "settings.toml"
    settings.write_text("[storage]\nidle_seconds = 10\n")
    secret = pathlib.Path(folder) / "secret"
    secret.write_text("s" * 32)
    for number in range(count):
        pg, rpc = ports[number]
        command = [binary, "run", "--config", str(settings), "--data-dir", f"{folder}/n{number}", "--pg-addr", f"127.0.0.1:{pg}", "--http-addr", "127.0.0.1:0"]
        if count > 1:
            command += ["--rpc-addr", f"127.0.0.1:{rpc}", "--cluster-secret-file", str(secret)]
            command += ["--join", f"127.0.0.1:{ports[0][1]}"] if number else []
        servers.append((subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True), pg))
        if not pathlib.Path(folder, "made").exists():
            wait(servers[-1])
    return servers


def wait(server):
    for line in server[0].stdout:
        if line.startswith("Ready"):
            return
    sys.exit("a node ended")


def memory_mb(servers):
    total = 0
    for process, _ in servers:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    return total / 1024


def connect(server):
    return psycopg.connect(f"postgresql://root@127.0.0.1:{server[1]}/cnosdb", autocommit=True)


def open_vnodes(servers):
    with connect(servers[0]) as connection:
        return sum(int(line[7] or 0) for line in connection.execute("SHOW NODES").fetchall())


def main():
    binary, count, sets = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        ports = [(free_port(), free_port()) for _ in range(count)]
        servers = start(binary, folder, count, ports)
        begin = time.monotonic()
        with connect(servers[0]) as connection:
            connection.execute(f"CREATE DATABASE b WITH REPLICA {count} SHARD {SHARDS} VNODE_DURATION '1h'")
            connection.execute("CREATE TABLE b.m (v BIGINT, TAGS(host))")
            refused = 0
            for bucket in range(sets // SHARDS):
                rows = f"SELECT {bucket * 3_600_000_000_000}, 'h' || i, i FROM generate_series(1, {HOSTS}) AS g(i)"
                while True:
                    try:
                        connection.execute(f"INSERT INTO b.m (time, host, v) {rows}")
                        break
                    except psycopg.Error:
                        # Many groups begin at once; the same rows again are no others.
                        refused += 1
        took = time.monotonic() - begin
        made = f"{sets // SHARDS * SHARDS:,} replica sets on {count} nodes were made and written to in {took:.0f} s"
        print(f"{made}, {refused} statements tried again, {memory_mb(servers):,.0f} MB resident", flush=True)
        begin = time.monotonic()
        while open_vnodes(servers):
            time.sleep(1)
        print(f"all of them slept {time.monotonic() - begin:.0f} s later, {memory_mb(servers):,.0f} MB resident", flush=True)
        before = cpu_seconds(servers)
        time.sleep(MINUTE)
        print(f"asleep: {(cpu_seconds(servers) - before) / MINUTE / count * 100:.2f} % of a core for each node")
        for process, _ in servers:
            process.terminate()
        for process, _ in servers:
            process.wait()
        pathlib.Path(folder, "made").touch()
        begin = time.monotonic()
        servers = start(binary, folder, count, ports)
        for server in servers:
            wait(server)
        print(f"ready again after {time.monotonic() - begin:.1f} s")
        begin = time.monotonic()
        with connect(servers[-1]) as connection:
            rows = connection.execute("SELECT count(*) FROM b.m WHERE time = '1970-01-01'").fetchone()[0]
        print(f"the first bucket's {rows:,} rows were counted {time.monotonic() - begin:.2f} s later")
        for process, _ in servers:
            process.terminate()
        for process, _ in servers:
            process.wait()


if __name__ == "__main__":
    main()
