#!/usr/bin/env python3
"""Line protocol: the rows of TSBS cpu-only in batches of 10,000 over two connections, to CnosDB, InfluxDB 1.x and VictoriaMetrics in turn;
prints rows per second and server CPU-seconds per million rows.

    bench/lines.py HOSTS HOURS NAME=URL:PID [NAME=URL:PID ...]

URL is the whole address of the write route, such as http://127.0.0.1:8902/api/v1/write?db=public.
"""

import http.client
import sys
import threading
import time
import urllib.parse

from peers import lines
from side_by_side import cpu_seconds, resident_mb
from tsbs import CPU, batches

CONNECTIONS = 2


def send(url, share, failures):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    for body in share:
        connection.request("POST", f"{parts.path}?{parts.query}", body)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status not in (200, 204):
            failures.append((answer.status, text[:200]))
            return


def main():
    hosts, hours = int(sys.argv[1]), int(sys.argv[2])
    data = [lines(CPU, text, "0" * 9) for text in batches(hosts, hours)]
    rows = sum(body.count(b"\n") for body in data)
    for peer in sys.argv[3:]:
        name, rest = peer.split("=", 1)
        url, pid = rest.rsplit(":", 1)
        failures = []
        begin, cpu = time.monotonic(), cpu_seconds(pid)
        threads = [threading.Thread(target=send, args=(url, data[at::CONNECTIONS], failures)) for at in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, cpu = time.monotonic() - begin, cpu_seconds(pid) - cpu
        if failures:
            sys.exit(f"{name}: {failures[0]}")
        print(f"{name:16}{rows / took:12,.0f} rows/s{cpu / rows * 1e6:8.2f} CPU-s per M rows{resident_mb(pid):8,.0f} MB private", flush=True)


main()
