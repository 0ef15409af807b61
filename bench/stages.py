#!/usr/bin/env python3
"""What stages do: TSBS cpu-only in a singleton, and in three nodes on this machine with SHARD 3, asked with stages and without (then
rows travel). Every answer is compared with the singleton's; EXPLAIN ANALYZE tells what travelled.

    bench/stages.py CNOSDB_BINARY [HOSTS] [HOURS]
"""

import random
import re
import statistics
import sys
import tempfile
import time

import psycopg

from nodes import cpu_seconds, start
from tsbs import FIELDS, TAGS, batches, questions

RUNS = 5
EXPLAINED = ["double-groupby-all", "high-cpu-all", "groupby-orderby-limit", "cpu-max-all-8"]


def connect(server):
    return psycopg.connect(f"postgresql://root@127.0.0.1:{server[1]}/cnosdb", autocommit=True)


def load(server, options, hosts, hours):
    with connect(server) as connection:
        connection.execute(f"CREATE DATABASE b WITH {options}")
        connection.execute("SET search_path = b")
        fields = ", ".join(f"{field} double precision" for field in FIELDS)
        connection.execute(f"CREATE TABLE cpu ({fields}, TAGS({', '.join(TAGS)}))")
        for text in batches(hosts, hours):
            with connection.cursor().copy(f"COPY cpu (time, {', '.join(TAGS + FIELDS)}) FROM STDIN") as sink:
                sink.write(text)
        connection.execute("COMPACT DATABASE b")


def ask(servers, hosts, hours, settings):
    """Returns answers, medians in ms and CPU-seconds of all nodes, by query."""
    answers, times = {}, {}
    with connect(servers[0]) as connection:
        connection.execute("SET search_path = b")
        for setting in settings:
            connection.execute(setting)
        before = cpu_seconds(servers)
        for run in range(RUNS):
            for query in questions(hosts, hours, random.Random(run)):
                begin = time.monotonic()
                rows = connection.execute(query.sql()).fetchall()
                times.setdefault(query.name, []).append((time.monotonic() - begin) * 1000)
                answers[query.name, run] = sorted(map(str, rounded(rows)))
        cpu = cpu_seconds(servers) - before
    return answers, {name: statistics.median(of) for name, of in times.items()}, cpu


def rounded(rows):
    """Floats computed in another order differ in their last digits."""
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def number(text):
    unit = {"K": 1e3, "KB": 1e3, "M": 1e6, "MB": 1e6}
    value, _, rest = text.partition(" ")
    return float(value) * unit.get(rest.strip(), 1)


def travelled(server, hosts, hours):
    with connect(server) as connection:
        connection.execute("SET search_path = b")
        for query in questions(hosts, hours, random.Random(0)):
            if query.name not in EXPLAINED:
                continue
            plan = connection.execute("EXPLAIN ANALYZE " + query.sql()).fetchone()[1]
            lines = plan.splitlines()

            def told(operator, metric):
                found = [re.search(metric + r"=([0-9.]+(?: ?[KMB]+)?)", line) for line in lines if operator in line]
                return sum(number(one.group(1)) for one in found if one)

            read, rows = told("DistributedLeafExec", "output_rows"), told("NetworkCoalesceExec", "output_rows")
            print(f"{query.name}: {read:,.0f} rows read, {rows:,.0f} came over, {told('NetworkCoalesceExec', 'bytes_transferred'):,.0f} bytes from other nodes")


def main():
    binary = sys.argv[1]
    hosts, hours = (int(sys.argv[at]) if len(sys.argv) > at else otherwise for at, otherwise in ((2, 100), (3, 12)))
    results = {}
    for name, count, options in [("singleton", 1, "SHARD 1"), ("three nodes", 3, "SHARD 3")]:
        with tempfile.TemporaryDirectory() as folder:
            servers = start(binary, folder, count)
            load(servers[0], options, hosts, hours)
            results[name] = ask(servers, hosts, hours, [])
            if count > 1:
                results["rows travel"] = ask(servers, hosts, hours, ["SET min_remote_stage_rows = 4000000000"])
                travelled(servers[0], hosts, hours)
            for process, _ in servers:
                process.terminate()
            for process, _ in servers:
                process.wait()
    alone, _, _ = results["singleton"]
    for name, (answers, _, cpu) in results.items():
        differ = [key for key in alone if answers[key] != alone[key]]
        print(f"{name}: {cpu:.1f} CPU-s for {len(alone)} queries, answers that differ from the singleton's: {differ}")
    print(f"{'query':24}" + "".join(f"{name + ' ms':>16}" for name in results))
    for name in results["singleton"][1]:
        print(f"{name:24}" + "".join(f"{medians[name]:16.2f}" for _, medians, _ in results.values()))


if __name__ == "__main__":
    main()
