#!/usr/bin/env python3
"""A query of 10 M rows over HTTP: how long, and how much memory the server takes meanwhile; and how long a scrape of
/metrics takes while two senders write lines as fast as they can.

    bench/answers.py ROWS PG_PORT HTTP_PORT SERVER_PID [loaded]
"""

import base64
import http.client
import statistics
import subprocess
import sys
import threading
import time

rows, pg_port, http_port, pid = (int(argument) for argument in sys.argv[1:5])
AUTH = {"Authorization": "Basic " + base64.b64encode(b"root:").decode()}
PART = 1_000_000


def sql(text):
    psql = ["psql", "-h", "127.0.0.1", "-p", str(pg_port), "-U", "root", "cnosdb", "-qAtc", text]
    return subprocess.run(psql, check=True, capture_output=True, text=True).stdout.strip()


def memory(name):
    """A line of the server's status, MiB."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) // 1024


def post(path, body, **more):
    connection = http.client.HTTPConnection("127.0.0.1", http_port)
    connection.request("POST", path, body, {**AUTH, **more})
    return connection.getresponse()


loaded = len(sys.argv) > 5
if not loaded:
    sql("DROP TABLE IF EXISTS big")
    sql("CREATE TABLE big (a DOUBLE, b DOUBLE, c BIGINT, TAGS(host))")
for part in [] if loaded else range(0, rows, PART):
    sql(
        "INSERT INTO big SELECT '2024-01-01'::timestamptz + n * interval '1 second', 'host' || n % 100, n / 7.0, sin(n), n "
        f"FROM generate_series({part + 1}, {min(part + PART, rows)}) AS g(n)"
    )
for accept in ["text/csv", "application/nd-json"]:
    with open(f"/proc/{pid}/clear_refs", "w") as refs:
        refs.write("5")
    before, begun = memory("VmRSS"), time.monotonic()
    answer = post("/api/v1/sql?db=public", "SELECT * FROM big", Accept=accept)
    assert answer.status == 200, answer.read()
    size = lines = 0
    while chunk := answer.read(1 << 20):
        size += len(chunk)
        lines += chunk.count(b"\n")
    took = time.monotonic() - begun
    print(f"{accept}: {lines} lines, {size >> 20} MiB in {took:.1f} s; memory {before} MiB before, {memory('VmHWM')} MiB at most")

stop = threading.Event()
sent = [0, 0]


def send(number):
    at = 0
    while not stop.is_set():
        lines = "".join(
            f"load,host=h{n % 100},sender=s{number} a={n}.5,b={n}i,c={n}.25 {1_700_000_000_000_000_000 + (at + n) * 1_000_000}\n"
            for n in range(10_000)
        )
        answer = post("/api/v1/write?db=public", lines)
        assert answer.status in (200, 204), answer.read()
        at += 10_000
        sent[number] += 10_000


senders = [threading.Thread(target=send, args=(number,)) for number in range(2)]
for sender in senders:
    sender.start()
time.sleep(2)
scrapes = []
for _ in range(100):
    connection = http.client.HTTPConnection("127.0.0.1", http_port)
    begun = time.monotonic()
    connection.request("GET", "/metrics", headers=AUTH)
    answer = connection.getresponse()
    length = len(answer.read())
    scrapes.append((time.monotonic() - begun) * 1_000)
    assert answer.status == 200
    time.sleep(0.05)
stop.set()
for sender in senders:
    sender.join()
scrapes.sort()
print(
    f"scrape of {length} bytes beside {sum(sent)} rows written: median {statistics.median(scrapes):.1f} ms, "
    f"p95 {scrapes[94]:.1f} ms, most {scrapes[-1]:.1f} ms"
)
