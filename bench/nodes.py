#!/usr/bin/env python3
"""What replication costs: the same rows by COPY into a singleton and into three nodes on this machine with REPLICA 3, both started
here, each alone while it is measured; then the same queries on both, answers compared.

    bench/nodes.py CNOSDB_BINARY [MILLIONS_OF_ROWS]

Prints rows per second, CPU-seconds of all processes per million rows, and medians of the queries.
"""

import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import psycopg

BATCH = 10_000
CONNECTIONS = 2
HOSTS = 100
FIELDS = [f"f{number}" for number in range(10)]
QUERIES = {
    "count": "SELECT count(*) FROM b.cpu WHERE f0 > 1",
    "double-groupby-all": "SELECT date_trunc('hour', time), host, " + ", ".join(f"avg({field})" for field in FIELDS)
    + " FROM b.cpu GROUP BY 1, 2 ORDER BY 1, 2",
    "high-cpu-all": "SELECT * FROM b.cpu WHERE f0 > 90 ORDER BY time, host",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(binary, folder, count):
    secret = pathlib.Path(folder) / "secret"
    secret.write_text("s" * 32)
    servers, first = [], None
    for number in range(count):
        pg, rpc = free_port(), free_port()
        command = [binary, "run", "--data-dir", f"{folder}/n{number}", "--pg-addr", f"127.0.0.1:{pg}", "--http-addr", "127.0.0.1:0"]
        if count > 1:
            command += ["--rpc-addr", f"127.0.0.1:{rpc}", "--cluster-secret-file", str(secret)]
            if first:
                command += ["--join", f"127.0.0.1:{first}"]
            first = first or rpc
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in process.stdout:
            if line.startswith("Ready"):
                break
        servers.append((process, pg))
    return servers


def cpu_seconds(servers):
    ticks = 0
    for process, _ in servers:
        fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def batches(rows):
    source = random.Random(1)
    for start_row in range(0, rows, BATCH):
        lines = []
        for row in range(start_row, start_row + BATCH):
            step, host = divmod(row, HOSTS)
            values = "\t".join(str(source.randrange(101)) for _ in FIELDS)
            lines.append(f"{(1_451_606_400 + step * 10) * 1_000_000_000}\thost_{host}\tregion_{host % 8}\t{values}\n")
        yield "".join(lines)


def load(servers, options, texts):
    urls = [f"postgresql://root@127.0.0.1:{port}/cnosdb" for _, port in servers]
    with psycopg.connect(urls[0], autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE b WITH {options}")
        admin.execute(f"CREATE TABLE b.cpu ({', '.join(f'{field} BIGINT' for field in FIELDS)}, TAGS(host, region))")
    before, began = cpu_seconds(servers), time.monotonic()

    def write(number):
        with psycopg.connect(urls[number % len(urls)], autocommit=True) as connection:
            for text in texts[number::CONNECTIONS]:
                with connection.cursor().copy(f"COPY b.cpu (time, host, region, {', '.join(FIELDS)}) FROM STDIN") as copy:
                    copy.write(text)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(CONNECTIONS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return time.monotonic() - began, cpu_seconds(servers) - before


def ask(server):
    answers, medians = {}, {}
    with psycopg.connect(f"postgresql://root@127.0.0.1:{server[1]}/cnosdb", autocommit=True) as connection:
        for name, query in QUERIES.items():
            times = []
            for _ in range(5):
                began = time.monotonic()
                answers[name] = connection.execute(query).fetchall()
                times.append(time.monotonic() - began)
            medians[name] = statistics.median(times)
    return answers, medians


def main():
    binary, millions = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    rows = int(millions * 1_000_000) // BATCH * BATCH
    texts = list(batches(rows))
    found = {}
    for name, count, options in [("singleton", 1, "REPLICA 1 SHARD 1"), ("three nodes", 3, "REPLICA 3 SHARD 1")]:
        with tempfile.TemporaryDirectory() as folder:
            servers = start(binary, folder, count)
            wall, cpu = load(servers, options, texts)
            answers, medians = ask(servers[-1])
            found[name] = answers
            print(f"{name}: {rows / wall:,.0f} rows/s, {cpu / rows * 1e6:.2f} CPU-s/M rows; " + ", ".join(f"{q} {m * 1000:.1f} ms" for q, m in medians.items()))
            for process, _ in servers:
                process.terminate()
            for process, _ in servers:
                process.wait()
    same = [query for query in QUERIES if sorted(map(str, found["singleton"][query])) == sorted(map(str, found["three nodes"][query]))]
    print(f"equal answers: {len(same)} of {len(QUERIES)}")


if __name__ == "__main__":
    main()
