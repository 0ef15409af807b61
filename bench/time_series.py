"""Gap filling, ASOF JOIN and LATEST ON beside DuckDB, over the same rows, in one run.

    pip install 'psycopg[binary]' duckdb
    python bench/time_series.py --binary target/release/cnosdb [--rows 10000000]

Both get two threads. Each query runs three times; the best time counts. The answers must be equal."""

import argparse
import socket
import subprocess
import tempfile
import time

import duckdb
import psycopg

HOSTS = 100


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(binary, folder):
    port = free_port()
    command = [binary, "run", "--data-dir", folder, "--pg-addr", f"127.0.0.1:{port}"]
    command += ["--http-addr", f"127.0.0.1:{free_port()}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            connection = psycopg.connect(host="127.0.0.1", port=port, user="root", dbname="cnosdb")
            connection.autocommit = True
            return server, connection
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


# A point every 3 s of each host; of each 100 ten are missing. The event of a host comes every 30 s.
POINT = "i // 100 % 100 < 90"
VALUE = "(i * 7919 % 1000) / 10.0"


def fill_ours(ours, rows):
    ours.execute("CREATE TABLE cpu (usage DOUBLE, TAGS(host))")
    ours.execute("CREATE TABLE events (level DOUBLE, TAGS(host))")
    at = "('2024-01-01'::timestamptz + (i / 100) * INTERVAL '{} seconds')"
    host = "concat('h', cast(i % 100 AS text))"
    series = "FROM generate_series({}, {}) AS g(i)"
    for first in range(0, rows, 1_000_000):
        last = min(first + 1_000_000, rows) - 1
        ours.execute(
            f"INSERT INTO cpu (time, host, usage) SELECT to_timestamp(1704067200 + (i / 100) * 3), "
            f"{host}, cast(i * 7919 % 1000 AS double precision) / 10.0 {series.format(first, last)} "
            f"WHERE i / 100 % 100 < 90"
        )
    ours.execute(
        f"INSERT INTO events (time, host, level) SELECT to_timestamp(1704067200 + (i / 100) * 30), "
        f"{host}, cast(i % 13 AS double precision) {series.format(0, rows // 10 - 1)}"
    )
    ours.execute("COMPACT DATABASE public")


def fill_duckdb(other, rows):
    other.execute("SET threads = 2")
    other.execute("SET TimeZone = 'UTC'")
    other.execute(
        f"CREATE TABLE cpu AS SELECT to_timestamp(1704067200 + (i // 100) * 3) AS time, "
        f"'h' || (i % 100) AS host, (i * 7919 % 1000)::double / 10.0 AS usage "
        f"FROM range({rows}) AS g(i) WHERE {POINT}"
    )
    other.execute(
        f"CREATE TABLE events AS SELECT to_timestamp(1704067200 + (i // 100) * 30) AS time, "
        f"'h' || (i % 100) AS host, (i % 13)::double AS level FROM range({rows // 10}) AS g(i)"
    )


def queries(rows):
    end = f"to_timestamp({1704067200 + rows // HOSTS * 3})"
    windows = f"""
        WITH w AS (SELECT host, date_bin(INTERVAL '10 seconds', time) AS w, avg(usage) AS u FROM cpu GROUP BY ALL),
        grid AS (SELECT host, t FROM (SELECT DISTINCT host FROM cpu), generate_series(
            to_timestamp(1704067200), {end} - INTERVAL '1 second', INTERVAL '10 seconds') AS g(t))
        SELECT count(*), round(sum(u), 3) FROM (
            SELECT last_value(w.u IGNORE NULLS) OVER (PARTITION BY grid.host ORDER BY t) AS u
            FROM grid LEFT JOIN w ON w.host = grid.host AND w.w = grid.t)"""
    windows = windows.replace("date_bin(INTERVAL '10 seconds', time)",
                              "time_bucket(INTERVAL '10 seconds', time, to_timestamp(0))")
    return [
        ("gap filling, locf",
         f"""SELECT count(*), round(sum(u), 3) FROM (SELECT host, time_window_gapfill(time, INTERVAL '10 seconds') AS w,
             locf(avg(usage)) AS u FROM cpu WHERE time >= to_timestamp(1704067200) AND time < {end} GROUP BY host, w)""",
         windows),
        ("ASOF JOIN",
         """SELECT count(r.level), round(sum(l.usage * r.level), 0) FROM cpu l ASOF JOIN events r
            MATCH_CONDITION (l.time >= r.time) ON l.host = r.host""",
         """SELECT count(r.level), round(sum(l.usage * r.level), 0) FROM cpu l ASOF LEFT JOIN events r
            ON l.host = r.host AND l.time >= r.time"""),
        ("LATEST ON",
         "SELECT count(*), round(sum(usage), 3) FROM (SELECT * FROM cpu LATEST ON time PARTITION BY host)",
         """SELECT count(*), round(sum(usage), 3) FROM
            (SELECT host, arg_max(usage, time) AS usage FROM cpu GROUP BY host)"""),
    ]


def best(run):
    times, answer = [], None
    for _ in range(3):
        begun = time.perf_counter()
        answer = run()
        times.append(time.perf_counter() - begun)
    return min(times), tuple(float(value) for value in answer)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--rows", type=int, default=10_000_000)
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server, ours = start(arguments.binary, folder)
        try:
            other = duckdb.connect()
            fill_ours(ours, arguments.rows)
            fill_duckdb(other, arguments.rows)
            for name, our_sql, other_sql in queries(arguments.rows):
                our_time, our_answer = best(lambda: ours.execute(our_sql).fetchone())
                other_time, other_answer = best(lambda: other.execute(other_sql).fetchone())
                same = "equal" if our_answer == other_answer else f"{our_answer} / {other_answer}"
                print(f"{name:20} {our_time:8.3f} s  DuckDB {other_time:8.3f} s  "
                      f"{our_time / other_time:5.2f}x  {same}", flush=True)
        finally:
            server.terminate()
            server.wait()


main()
