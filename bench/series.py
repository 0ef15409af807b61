#!/usr/bin/env python3
"""Many series: each with one row, by COPY over two connections; then the same rows once more, at a later time, beside as many rows of 100 series.
Prints series per second, the server's memory, how long it takes to start again, and how long queries take then.

    bench/series.py --binary target/release/cnosdb --series 10000000
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import threading
import time

import psycopg

CONNECTIONS = 2
BATCH = 10_000
START = "2026-01-01 00:00:00+00"
LATER = "2026-01-01 00:10:00+00"


class Server:
    def __init__(self, binary, folder):
        command = [binary, "run", "--data-dir", folder, "--pg-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]
        begin = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = next(line for line in self.process.stdout if line.startswith("Ready"))
        self.started = time.monotonic() - begin
        self.url = f"postgresql://root@127.0.0.1:{line.split(' -p ')[1].split()[0]}/cnosdb"

    def resident_mb(self, what="VmRSS"):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(what):
                return int(line.split()[1]) / 1024

    def cpu_seconds(self):
        parts = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(url, table, stamp, numbers, series):
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for begin in numbers:
            rows = "".join(f"{stamp}\tdevice_{n % series}\tsite_{n % series % 1000}\t{n % 100}\n" for n in range(begin, begin + BATCH))
            with cursor.copy(f"COPY {table} (time, device, site, v) FROM STDIN") as copy:
                copy.write(rows)


def measure(what, server, table, stamp, count, series):
    begin, cpu = time.monotonic(), server.cpu_seconds()
    starts = range(0, count, BATCH)
    threads = [threading.Thread(target=load, args=(server.url, table, stamp, starts[at::CONNECTIONS], series)) for at in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, cpu = time.monotonic() - begin, server.cpu_seconds() - cpu
    memory = f"{server.resident_mb():8,.0f} MB resident, {server.resident_mb('VmHWM'):8,.0f} at most"
    print(f"{what:44}{count / took:12,.0f} rows/s{cpu / count * 1e6:8.2f} CPU-s per M rows {memory}", flush=True)


def ask(server, sql):
    with psycopg.connect(server.url, autocommit=True) as connection, connection.cursor() as cursor:
        times = []
        for _ in range(5):
            begin = time.monotonic()
            rows = cursor.execute(sql).fetchall()
            times.append(time.monotonic() - begin)
    print(f"{sql:84}{sorted(times)[2] * 1000:10,.1f} ms  {rows[:1]}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--series", type=int, default=1_000_000)
    arguments = parser.parse_args()
    count = arguments.series
    with tempfile.TemporaryDirectory(dir=pathlib.Path.home()) as folder:
        server = Server(arguments.binary, folder)
        with psycopg.connect(server.url, autocommit=True) as connection:
            for table in ["few", "many"]:
                connection.execute(f"CREATE TABLE {table} (v BIGINT, TAGS(device, site))")
        few = min(count, 1_000_000)
        measure("rows of 100 series", server, "few", START, few, 100)
        measure("new series", server, "many", START, count, count)
        measure("their second rows", server, "many", LATER, count, count)
        server.stop()
        server = Server(arguments.binary, folder)
        print(f"started again in {server.started:.2f} s, {server.resident_mb():,.0f} MB resident", flush=True)
        last = f"device_{count - 1}"
        ask(server, f"SELECT v FROM many WHERE device = '{last}' ORDER BY time DESC LIMIT 1")
        ask(server, "SELECT count(*) FROM many")
        ask(server, "SELECT count(*), sum(v) FROM many WHERE site = 'site_7'")
        ask(server, "SELECT site, max(v) FROM many GROUP BY site ORDER BY site LIMIT 3")
        print(f"{server.resident_mb():,.0f} MB resident, {server.resident_mb('VmHWM'):,.0f} at most", flush=True)
        server.stop()
        print(f"{sum(path.stat().st_size for path in pathlib.Path(folder).rglob('*/index/*')) / count:.1f} bytes of index a series", flush=True)


main()
