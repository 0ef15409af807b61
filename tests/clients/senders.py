"""Senders of points over HTTP: the InfluxDB clients of both versions, curl with every encoding, OpenTSDB's
client; and what comes back packed and as Arrow and Parquet.

    senders.py HTTP_PORT OPENTSDB_PORT
"""

import gzip
import io
import socket
import subprocess
import sys
import tempfile
import zlib

import brotli
import influxdb
import influxdb_client
import lz4.frame
import opentsdb
import pyarrow
import pyarrow.parquet
import requests
import snappy
import zstandard
from influxdb_client.client.write_api import SYNCHRONOUS

PORT, OPENTSDB_PORT = map(int, sys.argv[1:])
URL = f"http://127.0.0.1:{PORT}"


def sql(text, accept="text/csv", **headers):
    answer = requests.post(f"{URL}/api/v1/sql?db=public", text, headers={"Accept": accept, **headers})
    assert answer.status_code == 200, answer.text
    return answer


def expect(text, rows):
    found = sql(text).text.splitlines()[1:]
    assert found == rows, (text, found)


def influx():
    old = influxdb.InfluxDBClient("127.0.0.1", PORT, "root", "", "public", gzip=True)
    point = {"measurement": "old", "tags": {"host": "a"}, "time": 1700000000, "fields": {"f": 1.5, "n": 3, "ok": True, "s": 'x "y"'}}
    assert old.write_points([point, {**point, "time": 1700000001}], time_precision="s")
    expect("SELECT time, host, f, n, ok, s FROM old ORDER BY time LIMIT 1", ['2023-11-14T22:13:20,a,1.5,3,true,"x ""y"""'])
    try:
        old.write_points([{**point, "fields": {"f": "text"}}], time_precision="s")
    except influxdb.exceptions.InfluxDBClientError as error:
        assert error.code == 400, error
    else:
        raise AssertionError("a field of another type was taken")
    with influxdb_client.InfluxDBClient(URL, token="root:", org="cnosdb", enable_gzip=True) as new:
        assert new.ping()
        writes = new.write_api(write_options=SYNCHRONOUS)
        point = influxdb_client.Point("new").tag("host", "b").field("f", 2.5).time(1700000000, "s")
        writes.write("public", record=point, write_precision="s")
    expect("SELECT time, host, f FROM new", ["2023-11-14T22:13:20,b,2.5"])


def encodings():
    line = "packed,coding={} f=1.5 1\n"
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
        "lz4": lz4.frame.compress,
        "snappy": snappy.compress,
    }
    for coding, pack in packed.items():
        with tempfile.NamedTemporaryFile() as body:
            body.write(pack(line.format(coding).encode()))
            body.flush()
            command = ["curl", "-sS", "-o", "/dev/stderr", "-w", "%{http_code}", "-H", f"Content-Encoding: {coding}"]
            command += ["--data-binary", f"@{body.name}", f"{URL}/api/v1/write?db=public"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stdout == "200", (coding, done)
    framed = snappy.StreamCompressor().compress(line.format("snappy frames").replace(" ", "\\ ", 1).encode())
    bare = raw.compress(line.format("bare").encode()) + raw.flush()
    for coding, body in [("snappy", framed), ("deflate", bare)]:
        answer = requests.post(f"{URL}/api/v1/write?db=public", body, headers={"Content-Encoding": coding})
        assert answer.status_code == 200, answer.text
    expect("SELECT coding FROM packed ORDER BY coding", ["bare", "br", "deflate", "gzip", "lz4", "snappy", "snappy frames", "zstd"])


def answers():
    many = "SELECT n, CAST(n AS TEXT) AS text FROM generate_series(1, 20000) AS s(n) ORDER BY n"
    plain = sql(many, **{"Accept-Encoding": "identity"}).content
    unpack = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "br": brotli.decompress,
        "zstd": lambda body: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read(),
        "lz4": lz4.frame.decompress,
        "snappy": lambda body: snappy.StreamDecompressor().decompress(body),
    }
    for coding, undo in unpack.items():
        answer = requests.post(f"{URL}/api/v1/sql", many, headers={"Accept-Encoding": coding}, stream=True)
        assert answer.headers["Content-Encoding"] == coding, answer.headers
        body = answer.raw.read(decode_content=False)
        assert len(body) < len(plain) and undo(body) == plain, coding
    stream = pyarrow.ipc.open_stream(sql(many, "application/vnd.apache.arrow.stream").content).read_all()
    file = pyarrow.parquet.read_table(io.BytesIO(sql(many, "application/vnd.apache.parquet").content))
    for table in [stream, file]:
        assert table.num_rows == 20000 and table["n"].to_pylist() == list(range(1, 20001)), table
        assert table["text"][19999].as_py() == "20000"
    drawn = sql("SELECT 1 AS one", "text/plain").text
    assert drawn.splitlines()[1] == "| one |", drawn
    named = requests.get(f"{URL}/api/v1/ping", headers={"X-Request-Id": "mine"})
    assert named.headers["X-Request-Id"] == "mine"


def open_tsdb():
    for protocol, port, name in [("HTTP", PORT, "sys.http"), ("TELNET", OPENTSDB_PORT, "sys.telnet")]:
        client = opentsdb.TSDBClient("127.0.0.1", port, protocol=getattr(opentsdb.TSDBConnectProtocols, protocol))
        client.send(name, 1.25, timestamp=1700000000, host="a")
        client.close()
        client.wait()
        assert client.statuses["success"] == 1, client.statuses
    expect('SELECT time, host, value FROM "sys.http"', ["2023-11-14T22:13:20,a,1.25"])
    with socket.create_connection(("127.0.0.1", OPENTSDB_PORT)) as wire:
        wire.sendall(b"put sys.telnet 1700000001 2 host=a\nput x\nversion\nnonsense\nexit\n")
        said = wire.makefile().read().splitlines()
    assert said == ["put: a line is: metric time value tag=value \u2026: put x", said[1], "unknown command: nonsense"], said
    assert said[1].startswith("CnosDB "), said
    expect('SELECT time, host, value FROM "sys.telnet" ORDER BY time', ["2023-11-14T22:13:20,a,1.25", "2023-11-14T22:13:21,a,2.0"])


for check in [influx, encodings, answers, open_tsdb]:
    check()
    print(f"{check.__name__}: ok")
