#!/usr/bin/env python3
"""TSBS devops cpu-only, beside PostgreSQL 15: loads the same rows into the same wide table of both by COPY, runs the 15 query
types on both in turn, compares every answer, and prints medians and ratios.

    bench/tsbs.py HOSTS HOURS CNOSDB_URL CNOSDB_PID POSTGRES_URL POSTGRES_PID [--loaded]

One row a host every 10 s: 10 tags, 10 fields that walk between 0 and 100 by whole steps, as TSBS makes them. PostgreSQL gets an
index on (hostname, time) and one on (time) after the load, whose time is not counted, and is analyzed. Ours is compacted.
With --loaded the tables of an earlier run are queried again.
"""

import os
import random
import statistics
import sys
import time

import psycopg

TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
FIELDS = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]
FIELDS = [f"usage_{name}" for name in FIELDS]
START = 1_451_606_400
STEP = 10
RUNS = 7
BATCH = 10_000


def tags_of(host, source):
    region = source.choice(["us-east-1", "us-west-1", "us-west-2", "eu-west-1", "eu-central-1", "ap-southeast-1", "ap-northeast-1", "sa-east-1"])
    return [
        f"host_{host}",
        region,
        region + source.choice("abc"),
        str(source.randrange(100)),
        source.choice(["Ubuntu16.10", "Ubuntu16.04LTS", "Ubuntu15.10"]),
        source.choice(["x64", "x86"]),
        source.choice(["SF", "NYC", "LON", "CHI"]),
        str(source.randrange(20)),
        str(source.randrange(2)),
        source.choice(["production", "staging", "test"]),
    ]


def batches(hosts, hours):
    """Yields COPY text of about BATCH rows, in order of time."""
    source = random.Random(7)
    tags = ["\t".join(tags_of(host, source)) for host in range(hosts)]
    walks = [[source.randrange(101) for _ in FIELDS] for _ in range(hosts)]
    steps = [-1, 0, 1]
    lines = []
    for tick in range(hours * 3600 // STEP):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(START + tick * STEP))
        for host in range(hosts):
            walk = walks[host]
            moves = source.choices(steps, k=len(walk))
            for at, move in enumerate(moves):
                walk[at] = min(100, max(0, walk[at] + move))
            lines.append(f"{stamp}\t{tags[host]}\t" + "\t".join(map(str, walk)) + "\n")
            if len(lines) == BATCH:
                yield "".join(lines)
                lines.clear()
    if lines:
        yield "".join(lines)


def stamp(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(START + seconds))


def queries(hosts, hours, source):
    """Returns name and text of the 15 query types, with parameters chosen by `source`."""

    def window(length):
        first = source.randrange(0, hours * 3600 - length + 1)
        return f"time >= '{stamp(first)}' AND time < '{stamp(first + length)}'"

    def some(count):
        return "hostname IN (" + ", ".join(f"'host_{host}'" for host in source.sample(range(hosts), count)) + ")"

    def maxima(count):
        return ", ".join(f"max({field}) AS max_{field}" for field in FIELDS[:count])

    def means(count):
        return ", ".join(f"avg({field}) AS mean_{field}" for field in FIELDS[:count])

    def single(fields, count, length):
        return (
            f"SELECT date_trunc('minute', time) AS minute, {maxima(fields)} FROM cpu WHERE {some(count)} AND {window(length * 3600)} "
            "GROUP BY minute ORDER BY minute"
        )

    def double(fields):
        return (
            f"SELECT date_trunc('hour', time) AS hour, hostname, {means(fields)} FROM cpu WHERE {window(min(12, hours) * 3600)} "
            "GROUP BY hour, hostname ORDER BY hour, hostname"
        )

    def highest(count):
        return (
            f"SELECT date_trunc('hour', time) AS hour, {maxima(10)} FROM cpu WHERE {some(count)} AND {window(min(8, hours) * 3600)} "
            "GROUP BY hour ORDER BY hour"
        )

    long = min(12, hours)
    return [
        ("single-groupby-1-1-1", single(1, 1, 1)),
        ("single-groupby-1-1-12", single(1, 1, long)),
        ("single-groupby-1-8-1", single(1, 8, 1)),
        ("single-groupby-5-1-1", single(5, 1, 1)),
        ("single-groupby-5-1-12", single(5, 1, long)),
        ("single-groupby-5-8-1", single(5, 8, 1)),
        ("cpu-max-all-1", highest(1)),
        ("cpu-max-all-8", highest(8)),
        ("double-groupby-1", double(1)),
        ("double-groupby-5", double(5)),
        ("double-groupby-all", double(10)),
        ("high-cpu-1", f"SELECT * FROM cpu WHERE usage_user > 90 AND {some(1)} AND {window(long * 3600)} ORDER BY hostname, time"),
        ("high-cpu-all", f"SELECT * FROM cpu WHERE usage_user > 90 AND {window(long * 3600)} ORDER BY hostname, time"),
        ("lastpoint", "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC"),
        (
            "groupby-orderby-limit",
            f"SELECT date_trunc('minute', time) AS minute, max(usage_user) FROM cpu WHERE time < '{stamp(hours * 3600 - 1800)}' "
            "GROUP BY minute ORDER BY minute DESC LIMIT 5",
        ),
        ("count(*)", "SELECT count(*) FROM cpu"),
    ]


def family(pid):
    yield int(pid)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[1] == str(pid):
                    yield int(name)
        except OSError:
            continue


def cpu_seconds(pid):
    """User and system time of a process and of all its children, ended ones too."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                parts = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(map(int, parts[11:15] if one == int(pid) else parts[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def resident_mb(pid):
    """Resident memory that is not shared with others, of a process and its children."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_", "Pss_Shmem")))
        except OSError:
            continue
    return total / 1024


def load(name, url, pid, hosts, hours):
    fields = ", ".join(f"{field} double precision" for field in FIELDS)
    tags = ", ".join(f"{tag} text" for tag in TAGS)
    ddl = f"CREATE TABLE cpu ({fields}, TAGS({', '.join(TAGS)}))" if name == "cnosdb" else f"CREATE TABLE cpu (time timestamptz, {tags}, {fields})"
    copy = f"COPY cpu (time, {', '.join(TAGS + FIELDS)}) FROM STDIN"
    rows, took, cpu = 0, 0.0, cpu_seconds(pid)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS cpu")
        connection.execute(ddl)
        # Making the rows costs more than sending them: only the sending is timed.
        for text in batches(hosts, hours):
            begin = time.monotonic()
            with connection.cursor().copy(copy) as sink:
                sink.write(text)
            took += time.monotonic() - begin
            rows += text.count("\n")
        cpu = cpu_seconds(pid) - cpu
        print(f"{name}: {rows:,} rows, {rows / took:,.0f} rows/s, {cpu / rows * 1e6:.2f} CPU-s per M rows, {resident_mb(pid):,.0f} MB private after the load", flush=True)
        if name == "cnosdb":
            begin = time.monotonic()
            connection.execute("COMPACT DATABASE public")
            print(f"{name}: compacted in {time.monotonic() - begin:.1f} s")
            size = connection.execute("SHOW COMPACTIONS").fetchall()
            size = sum(int(line[4]) for line in size)
        else:
            connection.execute("CREATE INDEX ON cpu (hostname, time)")
            connection.execute("CREATE INDEX ON cpu (time)")
            connection.execute("VACUUM ANALYZE cpu")
            size = connection.execute("SELECT pg_total_relation_size('cpu')").fetchone()[0]
        print(f"{name}: {size:,} bytes on disk, {size / rows / len(FIELDS):.3f} bytes per value", flush=True)


def rounded(rows):
    """Floats computed in another order differ in their last digits."""
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def main():
    loaded = "--loaded" in sys.argv
    hosts, hours, ours, our_pid, theirs, their_pid = [a for a in sys.argv[1:] if a != "--loaded"]
    hosts, hours = int(hosts), int(hours)
    if not loaded:
        load("cnosdb", ours, our_pid, hosts, hours)
        load("postgres", theirs, their_pid, hosts, hours)
    with psycopg.connect(ours, autocommit=True) as us, psycopg.connect(theirs, autocommit=True) as them:
        for connection in (us, them):
            connection.execute("SET timezone = 'UTC'")
        print(f"{'query':24}{'CnosDB ms':>12}{'PostgreSQL ms':>15}{'ratio':>8}  rows")
        texts = [queries(hosts, hours, random.Random(run)) for run in range(RUNS)]
        for at, (name, _) in enumerate(texts[0]):
            times = {"us": [], "them": []}
            for run in range(RUNS):
                text = texts[run][at][1]
                answers = []
                for key, connection in (("us", us), ("them", them)):
                    begin = time.monotonic()
                    answers.append(connection.execute(text).fetchall())
                    times[key].append((time.monotonic() - begin) * 1000)
                columns = len(answers[0][0]) if answers[0] else 0
                if name in ("high-cpu-1", "high-cpu-all", "lastpoint"):
                    # SELECT *: the tables have their columns in another order.
                    answers = [[tuple(sorted(map(str, row))) for row in rows] for rows in answers]
                if rounded(answers[0]) != rounded(answers[1]):
                    sys.exit(f"{name}: the answers differ ({len(answers[0])} and {len(answers[1])} rows of {columns} columns)\n{text}")
            us_ms, them_ms = statistics.median(times["us"]), statistics.median(times["them"])
            print(f"{name:24}{us_ms:12.2f}{them_ms:15.2f}{us_ms / them_ms:8.2f}  {len(answers[0])}", flush=True)
    print(f"private memory after the queries: CnosDB {resident_mb(our_pid):,.0f} MB, PostgreSQL {resident_mb(their_pid):,.0f} MB")


if __name__ == "__main__":
    main()
