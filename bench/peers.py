"""The systems that tsbs.py and iot.py load and ask, each in its own words."""

import dataclasses
import datetime
import decimal
import http.client
import json
import os
import pathlib
import sys
import time
import urllib.parse

START = 1_451_606_400
SPANS = {"minute": "1m", "hour": "1h"}


@dataclasses.dataclass
class Table:
    """A table of times, tags and fields, of which it knows the SQL types."""

    name: str
    tags: list
    fields: dict

    def columns(self):
        return ["time", *self.tags, *self.fields]


def stamp(seconds):
    """Returns a time so long after START."""
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(START + seconds))


def values(rows):
    """Returns numbers and texts of rows, in an order of their own: columns and their names differ between systems, and floats in
    their last digits."""

    def plain(value):
        if isinstance(value, datetime.datetime):
            if value.tzinfo is not None:
                value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
            return value.strftime("%Y-%m-%d %H:%M:%S")
        return f"{float(value):.6f}" if isinstance(value, (int, float, decimal.Decimal)) else str(value)

    return sorted(tuple(sorted(map(plain, row))) for row in rows)


class System:
    """One that answers SQL with rows, in the process `pid`."""

    # How it says: the window of time of some minutes, and the seconds of a time.
    window = "date_bin('{minutes} minutes', time, TIMESTAMPTZ '2000-01-01 00:00:00+00')"
    seconds = "extract(epoch FROM {time})"

    def __init__(self, name, address, pid, tables):
        self.name, self.address, self.pid, self.tables = name, address, pid, tables

    def ddl(self, table):
        """Returns what makes a table, with the system's `types` of times, tags and fields."""
        time, tag, types = self.types
        tags = ", ".join(f"{name} {tag}" for name in table.tags)
        fields = ", ".join(f"{name} {types.get(of_type, of_type)}" for name, of_type in table.fields.items())
        return f"CREATE TABLE {table.name} (time {time}, {tags}, {fields})"

    def batch(self, text):
        """Makes of COPY text what is loaded, before the clock runs."""
        return text

    def text(self, query):
        """Returns how the query is asked; None where it cannot be."""
        return query.sql(self)

    def comparable(self, query, rows):
        """Returns what all systems must agree on; None where that cannot be told."""
        return values(rows)


class Postgres(System):
    """PostgreSQL, and what speaks like it."""

    types = ("timestamptz", "text", {})

    def __init__(self, *given):
        super().__init__(*given)
        import psycopg

        self.connection = psycopg.connect(self.address, autocommit=True)
        self.connection.execute("SET timezone = 'UTC'")

    def create(self):
        for table in self.tables:
            self.connection.execute(f"DROP TABLE IF EXISTS {table.name}")
            self.connection.execute(self.ddl(table))

    def load(self, table, text):
        with self.connection.cursor().copy(f"COPY {table.name} ({', '.join(table.columns())}) FROM STDIN") as sink:
            sink.write(text)

    def finish(self):
        size = 0
        for table in self.tables:
            self.connection.execute(f"CREATE INDEX ON {table.name} ({table.tags[0]}, time DESC)")
            self.connection.execute(f"CREATE INDEX ON {table.name} (time)")
            self.connection.execute(f"VACUUM ANALYZE {table.name}")
            size += self.connection.execute(f"SELECT pg_total_relation_size('{table.name}')").fetchone()[0]
        return size

    def ask(self, text):
        return self.connection.execute(text).fetchall()


class Cnosdb(Postgres):
    """Ours."""

    def ddl(self, table):
        fields = ", ".join(f"{name} {of_type}" for name, of_type in table.fields.items())
        return f"CREATE TABLE {table.name} ({fields}, TAGS({', '.join(table.tags)}))"

    def finish(self):
        self.connection.execute("COMPACT DATABASE public")
        return sum(int(line[4]) for line in self.connection.execute("SHOW COMPACTIONS").fetchall())


class Embedded(System):
    """One in this process, whose clocks have no zone."""

    def __init__(self, name, address, _, tables):
        super().__init__(name, address, os.getpid(), tables)
        self.file = pathlib.Path(address + ".batch")

    def batch(self, text):
        # Its reader of files is its way for many rows; writing the file is not timed.
        self.file.write_text(text.replace("+00\t", "\t"))
        return self.file

    def text(self, query):
        return super().text(query).replace("+00'", "'")


class DuckDb(Embedded):
    """DuckDB."""

    types = ("TIMESTAMP", "VARCHAR", {})
    window = "time_bucket(INTERVAL '{minutes} minutes', time)"

    def __init__(self, *given):
        super().__init__(*given)
        import duckdb

        self.connection = duckdb.connect(self.address, config={"threads": 2})

    def create(self):
        for table in self.tables:
            self.connection.execute(f"DROP TABLE IF EXISTS {table.name}")
            self.connection.execute(self.ddl(table))

    def load(self, table, file):
        self.connection.execute(f"COPY {table.name} FROM '{file}' (DELIMITER '\t', HEADER false)")

    def finish(self):
        self.connection.execute("CHECKPOINT")
        return os.path.getsize(self.address)

    def ask(self, text):
        return self.connection.execute(text).fetchall()


class ChDb(Embedded):
    """ClickHouse."""

    types = ("DateTime('UTC')", "LowCardinality(String)", {"double precision": "Float64", "bigint": "Int64"})
    window = "toStartOfInterval(time, INTERVAL {minutes} minute)"
    seconds = "toUnixTimestamp({time})"

    def __init__(self, *given):
        super().__init__(*given)
        from chdb import session

        self.session = session.Session(self.address)

    def create(self):
        for table in self.tables:
            self.session.query(f"DROP TABLE IF EXISTS {table.name}")
            self.session.query(self.ddl(table) + f" ENGINE = MergeTree ORDER BY ({table.tags[0]}, time)")

    def load(self, table, file):
        self.session.query(f"INSERT INTO {table.name} FROM INFILE '{file}' FORMAT TSV")

    def finish(self):
        for table in self.tables:
            self.session.query(f"OPTIMIZE TABLE {table.name} FINAL")
        names = ", ".join(f"'{table.name}'" for table in self.tables)
        size = self.session.query(f"SELECT sum(bytes_on_disk) FROM system.parts WHERE table IN ({names}) AND active", "TSV")
        return int(size.bytes())

    def ask(self, text):
        return self.session.query(text + " SETTINGS max_threads = 2", "JSONCompactEachRow").bytes()

    def comparable(self, query, answer):
        return values(json.loads(line) for line in answer.splitlines())


class Http(System):
    """One that takes line protocol."""

    write = "/write?precision=s"

    def __init__(self, *given):
        super().__init__(*given)
        parts = urllib.parse.urlsplit(self.address)
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port)

    def request(self, method, path, body=None):
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if isinstance(body, str) else {}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 204):
            sys.exit(f"{self.name}: {answer.status} {text[:300]}")
        return text

    def batch(self, text):
        return lines(self.tables[0], text)

    def load(self, _, body):
        self.request("POST", self.write, body)


def lines(table, text, zeros=""):
    """Makes line protocol of COPY text, with times in seconds, or in what `zeros` make of them."""
    stamps, made = {}, []
    for row in text.splitlines():
        cells = row.split("\t")
        at = stamps.get(cells[0])
        if at is None:
            parsed = datetime.datetime.fromisoformat(cells[0] + ":00")
            at = stamps[cells[0]] = int(parsed.timestamp())
        head = ",".join(f"{name}={value}" for name, value in zip(table.tags, cells[1 : 1 + len(table.tags)]))
        body = ",".join(f"{name}={value}" for name, value in zip(table.fields, cells[1 + len(table.tags) :]))
        made.append(f"{table.name},{head} {body} {at}{zeros}\n")
    return "".join(made).encode()


class InfluxDb(Http):
    """InfluxDB 1.x, asked in InfluxQL."""

    write = "/write?db=bench&precision=s"

    def create(self):
        self.ask("DROP DATABASE bench")
        self.ask("CREATE DATABASE bench")

    def finish(self):
        found = self.ask("SHOW DIAGNOSTICS FOR 'config-data'").decode()
        folder = json.loads(found)["results"][0]["series"][0]
        folder = pathlib.Path(folder["values"][0][folder["columns"].index("dir")]) / "bench"
        return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())

    def ask(self, text):
        return self.request("POST", "/query", urllib.parse.urlencode({"db": "bench", "epoch": "s", "q": text}))

    def text(self, query):
        if query.name == "count(*)":
            return "SELECT count(usage_user) FROM cpu"
        if query.name == "lastpoint":
            return "SELECT * FROM cpu GROUP BY hostname ORDER BY time DESC LIMIT 1"
        conditions = [f"time < {START + query.end}s"]
        if query.start:
            conditions.append(f"time >= {START + query.start}s")
        if query.hosts:
            conditions.append("(" + " OR ".join(f"hostname = 'host_{host}'" for host in query.hosts) + ")")
        if query.function == "rows":
            return f"SELECT * FROM cpu WHERE usage_user > 90 AND {' AND '.join(conditions)}"
        function = {"max": "max", "avg": "mean"}[query.function]
        wanted = ", ".join(f"{function}({field})" for field in list(self.tables[0].fields)[: query.fields])
        keys = f"time({SPANS[query.unit]})" + (", hostname" if query.by_host else "")
        end = f" ORDER BY time DESC LIMIT {query.limit}" if query.limit else ""
        return f"SELECT {wanted} FROM cpu WHERE {' AND '.join(conditions)} GROUP BY {keys} fill(none){end}"

    def comparable(self, query, answer):
        rows = []
        for series in json.loads(answer)["results"][0].get("series", []):
            for row in series["values"]:
                at = datetime.datetime.fromtimestamp(row[0], datetime.timezone.utc)
                # A count comes with a time that nobody asked for.
                head = [] if query.name == "count(*)" else [at]
                rows.append((*head, *series.get("tags", {}).values(), *row[1:]))
        return values(rows)


class VictoriaMetrics(Http):
    """VictoriaMetrics, asked in MetricsQL; it gives values at ends of windows that end where it was asked to, so that they are others."""

    def create(self):
        self.request("POST", "/api/v1/admin/tsdb/delete_series", urllib.parse.urlencode({"match[]": '{__name__=~"cpu_.*"}'}))

    def finish(self):
        self.request("GET", "/internal/force_flush")
        self.request("GET", "/internal/force_merge")
        text = self.request("GET", "/metrics").decode()
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("vm_data_size_bytes"))

    def ask(self, text):
        return self.request("POST", "/api/v1/query_range", text)

    def text(self, query):
        if query.function not in ("max", "avg") or query.limit:
            return None
        names = "|".join(f"cpu_{field}" for field in list(self.tables[0].fields)[: query.fields])
        hosts = "|".join(f"host_{host}" for host in query.hosts)
        chosen = f'__name__=~"{names}"' + (f',hostname=~"{hosts}"' if hosts else "")
        span = SPANS[query.unit]
        by = "__name__, hostname" if query.by_host else "__name__"
        asked = f"{query.function}({query.function}_over_time({{{chosen}}}[{span}]) keep_metric_names) by ({by})"
        times = {"start": START + query.start, "end": START + query.end, "step": span, "nocache": 1}
        return urllib.parse.urlencode({"query": asked, **times})

    def comparable(self, query, answer):
        if not json.loads(answer)["data"]["result"]:
            sys.exit(f"{self.name}: {query.name}: no values")
        return None


SYSTEMS = {"cnosdb": Cnosdb, "postgres": Postgres, "duckdb": DuckDb, "chdb": ChDb, "influxdb": InfluxDb, "victoriametrics": VictoriaMetrics}


def connect(given, tables):
    """Connects to NAME=ADDRESS or NAME=ADDRESS@PID."""
    name, _, address = given.partition("=")
    head, at, pid = address.rpartition("@")
    return SYSTEMS[name](name, head, int(pid), tables) if at and pid.isdigit() else SYSTEMS[name](name, address, None, tables)
