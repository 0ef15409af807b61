#!/usr/bin/env python3
"""Loads the same wide rows (10 tags, 10 fields) into CnosDB and PostgreSQL 15 by COPY and by INSERT of 1,000 rows, and prints
rows per second and CPU-seconds of each server per million rows.

    bench/load.py ROWS CNOSDB_URL CNOSDB_PID POSTGRES_URL POSTGRES_PID

The tables are made anew. PostgreSQL's CPU is that of the postmaster's whole process group.
"""

import os
import random
import sys
import time

import psycopg

TAGS = [f"tag{n}" for n in range(10)]
FIELDS = [f"field{n}" for n in range(10)]
HOSTS = 400


def rows(count):
    source = random.Random(1)
    values = [[source.randrange(101) for _ in FIELDS] for _ in range(HOSTS)]
    start = 1_700_000_000
    for n in range(count):
        host = n % HOSTS
        walk = values[host]
        for at in range(len(walk)):
            walk[at] = min(100, max(0, walk[at] + source.choice((-1, 0, 1))))
        stamp = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(start + n // HOSTS * 10))
        tags = [f"host_{host}"] + [f"{tag}_{(host * 7 + at) % 20}" for at, tag in enumerate(TAGS[1:])]
        yield [stamp, *tags, *map(str, walk)]


def cpu_seconds(pid):
    """User and system time of a process and of all its children, ended ones too."""
    total, tick = 0, os.sysconf("SC_CLK_TCK")
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parts = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if name == str(pid):
            total += sum(map(int, parts[11:15]))
        elif parts[1] == str(pid):
            total += sum(map(int, parts[11:13]))
    return total / tick


def measure(what, url, pid, count, work):
    begin, cpu = time.monotonic(), cpu_seconds(pid)
    with psycopg.connect(url, autocommit=True) as connection:
        work(connection)
    took, cpu = time.monotonic() - begin, cpu_seconds(pid) - cpu
    print(f"{what:28} {count / took:12,.0f} rows/s {cpu / count * 1e6:8.2f} CPU-s per M rows")


def main():
    count, ours, our_pid, theirs, their_pid = sys.argv[1:]
    count = int(count)
    data = list(rows(count))
    text = ["".join("\t".join(row) + "\n" for row in data[at : at + 2_000]) for at in range(0, count, 2_000)]
    columns = ", ".join(["time", *TAGS, *FIELDS])
    few = data[: count // 5]
    inserts = [
        f"INSERT INTO cpu ({columns}) VALUES "
        + ", ".join("(" + ", ".join([f"'{v}'" for v in row[:11]] + row[11:]) + ")" for row in few[at : at + 1_000])
        for at in range(0, len(few), 1_000)
    ]
    fields = ", ".join(f"{name} double precision" for name in FIELDS)
    ddl = {
        "cnosdb": f"CREATE TABLE cpu ({fields}, TAGS({', '.join(TAGS)}))",
        "postgres": f"CREATE TABLE cpu (time timestamptz, {', '.join(f'{t} text' for t in TAGS)}, {fields})",
    }
    for name, url, pid in (("cnosdb", ours, our_pid), ("postgres", theirs, their_pid)):
        def copy(connection):
            connection.execute("DROP TABLE IF EXISTS cpu")
            connection.execute(ddl[name])
            with connection.cursor() as cursor, cursor.copy(f"COPY cpu ({columns}) FROM STDIN") as sink:
                for piece in text:
                    sink.write(piece)

        def insert(connection):
            connection.execute("DROP TABLE cpu")
            connection.execute(ddl[name])
            for statement in inserts:
                connection.execute(statement)

        measure(f"{name} COPY", url, pid, count, copy)
        measure(f"{name} INSERT of 1,000", url, pid, len(few), insert)


main()
