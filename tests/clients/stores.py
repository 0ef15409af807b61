"""COPY INTO to and from S3, as moto speaks it.

    stores.py serve                serves S3 until it is killed; prints its port
    stores.py use URL PORT         copies rows out and back through the server at URL, an address of PostgreSQL
"""

import sys
import threading

ROWS = 200_000
KEYS = "region = 'us-east-1' access_key_id = 'planted_key' secret_key = 'planted_secret'"


def serve():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    import boto3

    host, port = server.get_host_and_port()
    s3 = client(boto3, port)
    s3.create_bucket(Bucket="bucket")
    print(port, flush=True)
    threading.Event().wait()


def client(boto3, port):
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="planted_key",
        aws_secret_access_key="planted_secret",
    )


def use(url, port):
    import boto3
    import psycopg

    connection = f"CONNECTION = ({KEYS} endpoint_url = 'http://127.0.0.1:{port}')"
    s3 = client(boto3, port)

    def keys(prefix):
        return [one["Key"] for one in s3.list_objects_v2(Bucket="bucket", Prefix=prefix).get("Contents", [])]

    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE m (v DOUBLE, n BIGINT, s STRING, TAGS(k))")
        db.execute("CREATE TABLE back (v DOUBLE, n BIGINT, s STRING, TAGS(k))")
        db.execute(
            "INSERT INTO m (time, k, v, n, s) SELECT to_timestamp(value), 'k' || value % 10, value / 3.0, value, "
            f"CASE WHEN value % 7 = 0 THEN NULL ELSE 's' || value END FROM generate_series(1, {ROWS}) AS g(value)"
        )
        for form, packed in [("PARQUET", ""), ("CSV", "gzip"), ("JSON", "zstd")]:
            target = f"s3://bucket/out/{form}"
            packing = f", file_compression_type = '{packed}'" if packed else ""
            text = f"COPY INTO '{target}' FROM m {connection} FILE_FORMAT = (type = '{form}'{packing})"
            assert db.execute(text).rowcount == ROWS
            assert len(keys(f"out/{form}/")) == 1, keys("")
            try:
                db.execute(text)
                raise AssertionError("files were written over")
            except psycopg.errors.DuplicateTable as error:
                assert "planted" not in str(error)
            assert db.execute(text + " COPY_OPTIONS = (overwrite = true)").rowcount == ROWS
            assert len(keys(f"out/{form}/")) == 1, keys("")
            db.execute("TRUNCATE back")
            assert db.execute(f"COPY INTO back FROM '{target}' {connection} FILE_FORMAT = (type = '{form}')").rowcount == ROWS
            sums = "SELECT count(*), count(s), sum(n), max(v), min(s), count(DISTINCT k) FROM "
            assert db.execute(sums + "m").fetchall() == db.execute(sums + "back").fetchall(), form
        # A statement that fails after it has sent rows leaves nothing.
        failing = "SELECT 1000 / (value - 1400000) AS x, repeat('x', 100) || value AS y FROM generate_series(1, 2000000) AS g(value)"
        try:
            db.execute(f"COPY INTO 's3://bucket/failed' FROM ({failing}) {connection} FILE_FORMAT = (type = 'CSV')")
            raise AssertionError("1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        assert keys("failed") == [], keys("failed")
        for text in ["s3://elsewhere/x.csv", "s3://bucket2/x.csv"]:
            try:
                db.execute(f"COPY INTO '{text}' FROM m {connection}")
                raise AssertionError(text)
            except psycopg.errors.InsufficientPrivilege as error:
                assert "planted" not in str(error)
        # No key is told to anybody.
        told = db.execute("SELECT query_text FROM information_schema.queries").fetchall()
        assert "planted" not in str(told), told
    print("ok")


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else use(sys.argv[2], sys.argv[3])
