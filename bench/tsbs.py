#!/usr/bin/env python3
"""TSBS devops cpu-only: loads the same rows into all systems named, batch by batch in turn, runs the 15 query types (and count(*)) on
all in turn, compares answers, and prints medians and 95th percentiles.

    bench/tsbs.py HOSTS HOURS [--loaded] [--runs 15] SYSTEM [SYSTEM ...]

A SYSTEM is NAME=ADDRESS, or NAME=ADDRESS@PID where another process serves it (peers.py):

    cnosdb=postgresql://root@127.0.0.1:8904/cnosdb@4711     postgres=postgresql:///bench?host=/tmp/pg@4712
    influxdb=http://127.0.0.1:8086@4713                     victoriametrics=http://127.0.0.1:8428@4714
    duckdb=/tmp/bench.duckdb                                chdb=/tmp/bench.chdb

One row a host every 10 s: 10 tags, 10 fields that walk between 0 and 100 by whole steps, as TSBS makes them. With --loaded what an
earlier run loaded is queried again. Times are of the whole answer received: by psycopg with its rows decoded, over HTTP as text.
"""

import argparse
import dataclasses
import os
import random
import statistics
import sys
import time

TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
FIELDS = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]
FIELDS = [f"usage_{name}" for name in FIELDS]
START = 1_451_606_400
STEP = 10
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
        stamped = stamp(tick * STEP)
        for host in range(hosts):
            walk = walks[host]
            moves = source.choices(steps, k=len(walk))
            for at, move in enumerate(moves):
                walk[at] = min(100, max(0, walk[at] + move))
            lines.append(f"{stamped}\t{tags[host]}\t" + "\t".join(map(str, walk)) + "\n")
            if len(lines) == BATCH:
                yield "".join(lines)
                lines.clear()
    if lines:
        yield "".join(lines)


def stamp(seconds):
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(START + seconds))


@dataclasses.dataclass
class Query:
    """What is asked, in no language: values of `fields` of some hosts (all where there are none named) within a time, of each `unit`."""

    name: str
    function: str = ""  # max or avg by unit; rows; last
    fields: int = 0
    hosts: tuple = ()
    start: int = 0  # Seconds after START; the end is not within.
    end: int = 0
    unit: str = ""
    by_host: bool = False
    limit: int = 0

    def sql(self):
        """Returns the text for systems of SQL."""
        if self.name == "count(*)":
            return "SELECT count(*) FROM cpu"
        if self.name == "lastpoint":
            return "SELECT DISTINCT ON (hostname) * FROM cpu ORDER BY hostname, time DESC"
        conditions = []
        if self.hosts:
            conditions.append("hostname IN (" + ", ".join(f"'host_{host}'" for host in self.hosts) + ")")
        if self.start:
            conditions.append(f"time >= '{stamp(self.start)}'")
        conditions.append(f"time < '{stamp(self.end)}'")
        if self.function == "rows":
            conditions = ["usage_user > 90", *conditions]
            return f"SELECT * FROM cpu WHERE {' AND '.join(conditions)} ORDER BY hostname, time"
        prefix = {"max": "max", "avg": "mean"}[self.function]
        values = ", ".join(f"{self.function}({field}) AS {prefix}_{field}" for field in FIELDS[: self.fields])
        keys = f"{self.unit}, hostname" if self.by_host else self.unit
        order = f"{keys} DESC LIMIT {self.limit}" if self.limit else keys
        host = "hostname, " if self.by_host else ""
        return (
            f"SELECT date_trunc('{self.unit}', time) AS {self.unit}, {host}{values} FROM cpu WHERE {' AND '.join(conditions)} "
            f"GROUP BY {keys} ORDER BY {order}"
        )


def questions(hosts, hours, source):
    """Returns the 15 query types and a count of all rows, with parameters chosen by `source`."""

    def window(length):
        start = source.randrange(0, hours * 3600 - length + 1)
        return {"start": start, "end": start + length}

    def some(count):
        return {"hosts": tuple(source.sample(range(hosts), count))}

    def single(fields, count, length):
        name = f"single-groupby-{fields}-{count}-{12 if length > 1 else 1}"
        return Query(name, "max", fields, **some(count), **window(length * 3600), unit="minute")

    def double(fields):
        name = f"double-groupby-{'all' if fields == 10 else fields}"
        return Query(name, "avg", fields, **window(long * 3600), unit="hour", by_host=True)

    def highest(count):
        return Query(f"cpu-max-all-{count}", "max", 10, **some(count), **window(min(8, hours) * 3600), unit="hour")

    long = min(12, hours)
    return [
        single(1, 1, 1),
        single(1, 1, long),
        single(1, 8, 1),
        single(5, 1, 1),
        single(5, 1, long),
        single(5, 8, 1),
        highest(1),
        highest(8),
        double(1),
        double(5),
        double(10),
        Query("high-cpu-1", "rows", **some(1), **window(long * 3600)),
        Query("high-cpu-all", "rows", **window(long * 3600)),
        Query("lastpoint", "last"),
        Query("groupby-orderby-limit", "max", 1, end=hours * 3600 - 1800, unit="minute", limit=5),
        Query("count(*)"),
    ]


def queries(hosts, hours, source):
    """Returns name and SQL of each."""
    return [(query.name, query.sql()) for query in questions(hosts, hours, source)]


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


def rounded(rows):
    """Floats computed in another order differ in their last digits."""
    return [tuple(round(value, 6) if isinstance(value, float) else value for value in row) for row in rows]


def load(systems, hosts, hours):
    for one in systems:
        one.create()
    rows, took, cpu = 0, [0.0] * len(systems), [0.0] * len(systems)
    for text in batches(hosts, hours):
        rows += text.count("\n")
        for at, one in enumerate(systems):
            batch = one.batch(text)
            before, begin = cpu_seconds(one.pid), time.monotonic()
            one.load(batch)
            took[at] += time.monotonic() - begin
            cpu[at] += cpu_seconds(one.pid) - before
    for at, one in enumerate(systems):
        memory, before, begin = resident_mb(one.pid), cpu_seconds(one.pid), time.monotonic()
        size = one.finish()
        late, cpu[at] = time.monotonic() - begin, cpu[at] + cpu_seconds(one.pid) - before
        print(
            f"{one.name:16} {rows:,} rows, {rows / took[at]:,.0f} rows/s, {cpu[at] / rows * 1e6:.2f} CPU-s per M rows with all that came after it "
            f"({late:.1f} s), {memory:,.0f} MB private after the load, {size / rows / len(FIELDS):.3f} bytes per value",
            flush=True,
        )


def ask(systems, hosts, hours, runs):
    columns = "".join(f"{one.name:>24}" for one in systems)
    print(f"median · 95th percentile, ms {columns}", flush=True)
    chosen = [questions(hosts, hours, random.Random(run)) for run in range(runs)]
    for at in range(len(chosen[0])):
        times = [[] for _ in systems]
        for run in range(runs):
            query = chosen[run][at]
            expected = None
            for one, spent in zip(systems, times):
                text = one.text(query)
                if text is None:
                    continue
                begin = time.monotonic()
                answer = one.ask(text)
                spent.append((time.monotonic() - begin) * 1000)
                answer = one.comparable(query, answer)
                if answer is None:
                    continue
                if expected is None:
                    expected = answer
                elif answer != expected:
                    sys.exit(f"{one.name}: {query.name}: another answer than {systems[0].name} ({len(answer)} and {len(expected)} values)\n{text}")
        cells = []
        for spent in times:
            high = sorted(spent)[max(0, -(-len(spent) * 95 // 100) - 1)] if spent else 0
            cells.append(f"{statistics.median(spent):.2f} · {high:.2f}" if spent else "–")
        print(f"{chosen[0][at].name:28}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    print("private memory after the queries: " + ", ".join(f"{one.name} {resident_mb(one.pid):,.0f} MB" for one in systems))


def main():
    import peers

    parser = argparse.ArgumentParser()
    parser.add_argument("hosts", type=int)
    parser.add_argument("hours", type=int)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--runs", type=int, default=15)
    wanted = parser.parse_args()
    systems = [peers.connect(one) for one in wanted.systems]
    if not wanted.loaded:
        load(systems, wanted.hosts, wanted.hours)
    ask(systems, wanted.hosts, wanted.hours, wanted.runs)


if __name__ == "__main__":
    main()
