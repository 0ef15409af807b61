#!/usr/bin/env python3
"""10 M rows by COPY INTO out to Parquet on an S3 server (moto) and back, and killed in the middle.

    bench/stores.py CNOSDB_BINARY [ROWS]

Needs the clients that `make test` installs: run it with ~/.cache/cnosdb/clients/bin/python. It starts the
database and the S3 server, each in a folder of its own, and prints what each step took. Killed in the middle
(kill -9), an export must leave no object, and a second run must complete; an import that is killed must
complete by a second run with each row once.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import boto3
import psycopg
from moto.server import ThreadedMotoServer

KEYS = "region = 'us-east-1' access_key_id = 'key' secret_key = 'secret'"
PORT = 6461


class Database:
    def __init__(self, binary, folder, s3_port):
        config = os.path.join(folder, "config.toml")
        with open(config, "w") as file:
            file.write(f'[files]\nurls = ["s3://bucket/"]\nendpoints = ["http://127.0.0.1:{s3_port}"]\n')
        self.command = [binary, "run", "--config", config, "--data-dir", os.path.join(folder, "data")]
        self.command += ["--pg-addr", f"127.0.0.1:{PORT}", "--http-addr", f"127.0.0.1:{PORT + 1}"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while not self.process.stdout.readline().startswith("Ready"):
            pass

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def run(self, text):
        url = f"postgresql://root@127.0.0.1:{PORT}/cnosdb"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def peak_mib(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024


def main():
    binary, rows = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000_000
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3 = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    s3.create_bucket(Bucket="bucket")
    objects = lambda prefix: s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])
    connection = f"CONNECTION = ({KEYS} endpoint_url = 'http://127.0.0.1:{port}') FILE_FORMAT = (type = 'PARQUET')"
    with tempfile.TemporaryDirectory() as folder:
        database = Database(binary, folder, port)

        def step(what, text):
            begun = time.time()
            answer = database.run(text)
            print(f"{what}: {time.time() - begun:.1f} s, {answer}, memory at most {database.peak_mib()} MiB", flush=True)
            return answer

        def killed(text, after):
            """Runs a statement and kills the server so many seconds later."""
            runner = threading.Thread(target=lambda: quiet(database, text))
            runner.start()
            time.sleep(after)
            was_running = runner.is_alive()
            database.kill()
            runner.join()
            database.start()
            return was_running

        sums = "SELECT count(*), sum(n), count(s), count(DISTINCT k), min(time), max(time) FROM "
        for table in ["m", "back", "again"]:
            database.run(f"CREATE TABLE {table} (v DOUBLE, n BIGINT, s STRING, TAGS(k))")
        step(
            "INSERT",
            "INSERT INTO m (time, k, v, n, s) SELECT to_timestamp(g), 'k' || g % 100, g / 3.0, g, "
            f"CASE WHEN g % 7 = 0 THEN NULL ELSE 's' || g END FROM generate_series(1, {rows}) AS t(g)",
        )
        export = f"COPY INTO 's3://bucket/out' FROM m {connection}"
        begun = time.time()
        assert step("COPY INTO S3", export) == rows
        took = time.time() - begun
        print(f"{len(objects('out/'))} objects, {sum(one['Size'] for one in objects('out/')) >> 20} MiB")
        begun = time.time()
        assert step("COPY INTO back", f"COPY INTO back FROM 's3://bucket/out' {connection}") == rows
        back_took = time.time() - begun
        expected = step("sums", sums + "m")
        assert step("sums of what came back", sums + "back") == expected
        half = f"COPY INTO 's3://bucket/half' FROM m {connection}"
        assert killed(half, took / 2), "the export was faster than the kill"
        assert objects("half/") == [], objects("half/")
        print("killed in the middle of an export: no object is seen")
        assert step("the export again", half) == rows
        again = f"COPY INTO again FROM 's3://bucket/out' {connection}"
        assert killed(again, back_took / 2), "the import was faster than the kill"
        print("killed in the middle of an import:", database.run("SELECT count(*) FROM again"))
        assert step("the import again", again) == rows
        assert step("sums of it", sums + "again") == expected
        database.kill()
    server.stop()
    print("ok")


def quiet(database, text):
    try:
        database.run(text)
    except psycopg.Error:
        pass


if __name__ == "__main__":
    main()
