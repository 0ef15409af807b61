#!/usr/bin/env python3
"""A cluster of three nodes in network namespaces of their own, whose wires are cut, whose processes are stopped, whose clock is an hour
off and whose disk is full, while writers go on: every acknowledged row must be there once, and the replicas equal.

    tests/faults/partitions.py CNOSDB_BINARY [ROUNDS] [--clock] [KIND]…

Needs root, iproute2, nftables, faketime, e2fsprogs, and psycopg. Each round is one of: a node cut off both ways, or of what it sends, or
of what it gets (nftables); a node that stands still (SIGSTOP) for 1 to 20 s; a node killed (kill -9). With --clock the third node's clock is an
hour ahead all the time; kinds of faults that are named ("both ways", kill) are the only ones; the second's disk of 400 MiB is filled for one round. Prints how long writers waited.
"""

import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

NODES = 3
WRITERS = 4
ROWS = 20
PASSWORD = "partition-test"


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


def address(node):
    return f"10.77.0.{11 + node}"


class Cluster:
    def __init__(self, binary, folder):
        self.binary, self.folder, self.processes = binary, pathlib.Path(folder), [None] * NODES
        (self.folder / "secret").write_text("s" * 32)
        (self.folder / "settings.toml").write_text(
            "[security]\nallow_plaintext = true\n[storage]\nwal_segment_bytes = 4194304\n[cluster]\nsilence_seconds = 3\nrebuild_seconds = 600\n"
        )
        run("ip", "link", "add", "cnosbr", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.1/24", "dev", "cnosbr")
        run("ip", "link", "set", "cnosbr", "up")
        for node in range(NODES):
            name = f"cnos{node}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"cnosv{node}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", f"cnosv{node}", "master", "cnosbr", "up")
            self.inside(node, "ip", "addr", "add", f"{address(node)}/24", "dev", "eth0")
            self.inside(node, "ip", "link", "set", "eth0", "up")
            self.inside(node, "ip", "link", "set", "lo", "up")
            self.inside(node, "nft", "add", "table", "inet", "cut")
            for hook in ("input", "output"):
                self.inside(node, "nft", f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; }}")
        disk = self.folder / "disk.img"
        run("truncate", "-s", "400M", str(disk))
        run("mkfs.ext4", "-q", str(disk))
        (self.folder / "n1").mkdir()
        run("mount", "-o", "loop", str(disk), str(self.folder / "n1"))

    def inside(self, node, *command):
        return run("ip", "netns", "exec", f"cnos{node}", *command)

    def start(self, node):
        command = ["ip", "netns", "exec", f"cnos{node}"]
        if node == 2 and "--clock" in sys.argv:
            # Not by the program faketime: it would stand between us and the server, and be killed in its stead.
            (library,) = pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
            command += ["env", f"LD_PRELOAD={library}", "FAKETIME=+1h"]
        command += [self.binary, "run", "--config", str(self.folder / "settings.toml"), "--data-dir", str(self.folder / f"n{node}" / "data"), "--log", "warn,openraft=off"]
        command += ["--pg-addr", f"{address(node)}:5432", "--http-addr", "127.0.0.1:0", "--rpc-addr", f"{address(node)}:8903", "--zone", f"z{node}"]
        command += ["--cluster-secret-file", str(self.folder / "secret")]
        command += ["--join", ",".join(f"{address(other)}:8903" for other in range(NODES) if other != node)] if node or (self.folder / "made").exists() else []
        log = open(self.folder / f"n{node}.log", "a")
        # Timers go by the monotonic clock, which no wall clock moves.
        environment = dict(os.environ, CNOSDB_ROOT_PASSWORD=PASSWORD, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        for line in process.stdout:
            if line.startswith("Ready"):
                break
        self.processes[node] = process

    def signal(self, node, signal):
        # `ip netns exec` and env become the server: there is no process between.
        os.kill(self.processes[node].pid, signal)

    def cut(self, node, ways):
        others = ", ".join(address(other) for other in range(NODES) if other != node)
        for way, side in (("input", "saddr"), ("output", "daddr")):
            if way in ways:
                self.inside(node, "nft", f"add rule inet cut {way} ip {side} {{ {others} }} drop")

    def heal(self, node):
        for way in ("input", "output"):
            self.inside(node, "nft", f"flush chain inet cut {way}")

    def connect(self, node):
        return psycopg.connect(f"postgresql://root:{PASSWORD}@{address(node)}/cnosdb", autocommit=True, connect_timeout=3)

    def close(self):
        for process in filter(None, self.processes):
            process.kill()
            process.wait()
        run("umount", str(self.folder / "n1"), check=False)
        for node in range(NODES):
            run("ip", "link", "del", f"cnosv{node}", check=False)
            run("ip", "netns", "del", f"cnos{node}", check=False)
        run("ip", "link", "del", "cnosbr", check=False)


class Writer(threading.Thread):
    """Writes batches in order; one that was not acknowledged is sent again, to another node."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster, self.number, self.acked, self.stopping, self.gaps, self.failures, self.error = cluster, number, 0, False, [], 0, None

    def run(self):
        node, connection, last = self.number, None, time.monotonic()
        while not self.stopping:
            values = ", ".join(f"({self.acked * ROWS + row}, 'w{self.number}', {self.acked})" for row in range(ROWS))
            try:
                if connection is None:
                    node += 1
                    connection = self.cluster.connect(node % NODES)
                    connection.execute("SET statement_timeout = '5s'")
                connection.execute(f"INSERT INTO p.k (time, w, v) VALUES {values}")
                self.acked += 1
                self.gaps.append((last, time.monotonic() - last))
                last = time.monotonic()
            except psycopg.Error as error:
                self.failures, self.error = self.failures + 1, str(error).strip()
                try:
                    connection and connection.close()
                except psycopg.Error:
                    pass
                connection = None


def fill(cluster):
    path = cluster.folder / "n1" / "filler"
    with open(path, "wb") as filler:
        try:
            while True:
                filler.write(b"\0" * 65536)
        except OSError:
            pass
    return path


def go_on(writers, patience=40):
    """Waits until each writer got two acknowledgements more."""
    wanted = [writer.acked + 2 for writer in writers]
    end = time.monotonic() + patience
    while any(writer.acked < goal for writer, goal in zip(writers, wanted)):
        if time.monotonic() > end:
            sys.exit(f"writes do not go on: {[(writer.acked, writer.error) for writer in writers]}")
        time.sleep(0.05)


def fault(cluster, kind, node, source, writers):
    if kind == "kill":
        cluster.signal(node, 9)
        cluster.processes[node].wait()
        go_on(writers)
        cluster.start(node)
    elif kind == "stop":
        cluster.signal(node, 19)
        time.sleep(source.uniform(1, 20))
        cluster.signal(node, 18)
    elif kind == "full disk":
        path = fill(cluster)
        go_on(writers)
        time.sleep(10)
        go_on(writers)
        path.unlink()
        # One that only follows ends once its log finds no place: nothing it could say would be true.
        ended = cluster.processes[node].poll()
        print(f"the node with the full disk {'goes on' if ended is None else f'ended with {ended}, and is started again'}", flush=True)
        if ended is not None:
            cluster.start(node)
    else:
        cluster.cut(node, {"both ways": ("input", "output"), "what it sends": ("output",), "what it gets": ("input",)}[kind])
        go_on(writers)
        time.sleep(source.uniform(1, 5))
        cluster.heal(node)
    go_on(writers)


def main():
    binary, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    source = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(binary, folder)
        try:
            for node in range(NODES):
                cluster.start(node)
            (cluster.folder / "made").touch()
            # Until all three keep the catalog, the loss of one may be the loss of its majority.
            time.sleep(5)
            with cluster.connect(0) as connection:
                connection.execute("CREATE DATABASE p WITH REPLICA 3 SHARD 2")
                connection.execute("CREATE TABLE p.k (v BIGINT, TAGS(w))")
            writers = [Writer(cluster, number) for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            go_on(writers)
            kinds = ["both ways", "what it sends", "what it gets", "stop", "kill"]
            kinds = [kind for kind in kinds if kind in sys.argv] or kinds
            waits = {}
            for number in range(rounds):
                kind = "full disk" if number == rounds // 2 and len(kinds) > 1 else kinds[number % len(kinds)]
                node = 1 if kind == "full disk" else source.randrange(NODES)
                begin = time.monotonic()
                fault(cluster, kind, node, source, writers)
                end = time.monotonic()
                longest = max((length for writer in writers for start, length in writer.gaps if start <= end and begin <= start + length), default=0)
                waits.setdefault(kind, []).append(longest)
                print(f"round {number}: {kind}, node {node + 1}: the longest wait of a writer {longest:.2f} s, {sum(w.acked for w in writers):,} batches acknowledged", flush=True)
            for writer in writers:
                writer.stopping = True
            for writer in writers:
                writer.join()
            lost = doubled = 0
            for node in range(NODES):
                with cluster.connect(node) as connection:
                    for writer in writers:
                        rows = connection.execute("SELECT time::BIGINT, v FROM p.k WHERE w = %s ORDER BY time", (f"w{writer.number}",)).fetchall()
                        expected = {batch * ROWS + row: batch for batch in range(writer.acked) for row in range(ROWS)}
                        found = dict(rows)
                        doubled += len(rows) - len(found)
                        lost += sum(found.get(at) != value for at, value in expected.items())
            with cluster.connect(0) as connection:
                sets = [line[0] for line in connection.execute("SHOW REPLICAS").fetchall()]
                equal = all(len({line[2:] for line in connection.execute(f"CHECKSUM GROUP {number}").fetchall()}) == 1 for number in sets)
            print(f"{sum(writer.acked for writer in writers) * ROWS:,} rows acknowledged, {sum(writer.failures for writer in writers)} refused or unanswered tries; lost {lost}, doubled {doubled}; replicas equal: {equal}")
            for kind, lengths in waits.items():
                lengths.sort()
                print(f"{kind}: {len(lengths)} rounds, longest waits {', '.join(f'{length:.2f}' for length in lengths)} s")
            sys.exit(0 if lost == doubled == 0 and equal else 1)
        finally:
            for node in range(NODES):
                tail = (cluster.folder / f"n{node}.log").read_text().splitlines()[-5:]
                print(f"node {node + 1}'s log ends: {tail}", file=sys.stderr)
            cluster.close()


if __name__ == "__main__":
    main()
