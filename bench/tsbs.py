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

import dataclasses
import random

from peers import Table, stamp
from side_by_side import compare

TAGS = ["hostname", "region", "datacenter", "rack", "os", "arch", "team", "service", "service_version", "service_environment"]
FIELDS = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]
FIELDS = [f"usage_{name}" for name in FIELDS]
CPU = Table("cpu", TAGS, dict.fromkeys(FIELDS, "double precision"))
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

    def sql(self, _=None):
        """Returns the text for systems of SQL, which all understand it."""
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


def of_cpu(hosts, hours):
    return ((CPU, text) for text in batches(hosts, hours))


if __name__ == "__main__":
    compare("hosts", [CPU], of_cpu, questions, runs=15)
