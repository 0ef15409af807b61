"""psycopg 3: parameters in both formats, COPY in text and binary, server-side errors."""

import datetime
import decimal
import sys
import uuid

import psycopg
from psycopg.types.json import Jsonb

utc = datetime.timezone.utc
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    connection.execute("CREATE TABLE p (i BIGINT, f DOUBLE, b BOOLEAN, s STRING, TAGS(host))")
    moment = datetime.datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=utc)
    insert = "INSERT INTO p (time, host, i, f, b, s) VALUES (%s, %s, %s, %s, %s, %s)"
    connection.execute(insert, (moment, "a", 1, 1.5, True, "it's"))
    with connection.cursor() as cursor:
        cursor.executemany(
            insert, [(moment + datetime.timedelta(seconds=n), "b", n, n / 2, False, None) for n in range(1, 101)]
        )
    row = connection.execute("SELECT time, host, i, f, b, s FROM p WHERE host = %s", ("a",)).fetchone()
    assert row == (moment, "a", 1, 1.5, True, "it's"), row
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SELECT time, i, f, b, s FROM p WHERE time >= %s AND i > %s ORDER BY time", (moment, 98))
        rows = cursor.fetchall()
    assert [r[1] for r in rows] == [99, 100] and rows[0][4] is None, rows
    with connection.cursor() as cursor:
        with cursor.copy("COPY p (time, host, i) FROM STDIN") as copy:
            for n in range(1000):
                copy.write_row((moment + datetime.timedelta(minutes=n), "c", n))
        with cursor.copy("COPY p (time, host, i, f) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["timestamptz", "text", "int8", "float8"])
            for n in range(1000):
                copy.write_row((moment + datetime.timedelta(minutes=n), "d", n, n / 4))
        with cursor.copy("COPY (SELECT host, i FROM p WHERE host = 'c' ORDER BY time) TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 1000
    counts = connection.execute("SELECT host, count(*), sum(i) FROM p GROUP BY host ORDER BY host").fetchall()
    assert counts == [("a", 1, 1), ("b", 100, 5050), ("c", 1000, 499500), ("d", 1000, 499500)], counts
    with connection.transaction(), connection.cursor(name="of the server") as cursor:
        cursor.execute("SELECT i FROM p WHERE host = 'b' ORDER BY i")
        assert cursor.fetchmany(2) == [(1,), (2,)] and len(cursor.fetchall()) == 98
    (now,) = connection.execute("SELECT now()").fetchone()
    assert now.tzinfo is not None
    try:
        connection.execute("SELECT nothing FROM p")
    except psycopg.errors.UndefinedColumn as error:
        assert "nothing" in str(error)
    else:
        raise AssertionError("an unknown column is an error")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    for binary in [False, True]:
        with connection.cursor(binary=binary) as cursor:
            cursor.execute("SELECT count(*) FROM p WHERE host = ANY(%s)", (["a", "b"],))
            assert cursor.fetchone() == (101,)
            cursor.execute("SELECT count(*) FROM p WHERE host <> ALL(%s) AND i = ANY(%s)", (["a", "c"], [1, 2, 3]))
            assert cursor.fetchone() == (6,)
            cursor.execute("SELECT count(*) FROM p WHERE host = ANY(%s)", ([],))
            assert cursor.fetchone() == (0,)
            cursor.execute("SELECT time FROM p WHERE host = 'a' AND time = ANY(%s)", ([moment],))
            assert cursor.fetchone() == (moment,)
    connection.execute("SET TIME ZONE 'Europe/Berlin'")
    shown = connection.execute("SELECT time FROM p WHERE host = 'a'").fetchone()[0]
    assert shown == moment and shown.utcoffset() == datetime.timedelta(hours=2), shown
    naive = datetime.datetime(2024, 5, 1, 14, 30, 15, 123456)
    found = connection.execute("SELECT host FROM p WHERE host = 'a' AND time = %s::timestamptz", (naive.isoformat(),))
    assert found.fetchone() == ("a",)
    values = [
        (uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (b"\x00\xffab", b"\x00\xffab"),
        (datetime.time(10, 20, 30, 5), "10:20:30.000005"),
        (decimal.Decimal("-12345678.5001"), -12345678.5001),
        (datetime.timedelta(days=1, seconds=5), datetime.timedelta(days=1, seconds=5)),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 1)),
        ([1.5, None], [1.5, None]),
    ]
    connection.execute("CREATE TABLE unsigned (u BIGINT UNSIGNED, TAGS(host))")
    for at, (placeholder, sent, kept) in enumerate(
        [("%t", 2**64 - 1, 2**64 - 1), ("%b", decimal.Decimal(5), 5), ("%b", 2.0, 2)]
    ):
        at = moment + datetime.timedelta(seconds=at)
        connection.execute(f"INSERT INTO unsigned (time, host, u) VALUES (%s, 'h', {placeholder})", (at, sent))
        (got,) = connection.execute("SELECT u FROM unsigned WHERE time = %s", (at,)).fetchone()
        assert got == kept, (placeholder, sent, got)
    assert connection.execute("SELECT row_number() OVER ()").fetchone() == (1,)
    for placeholder in ["%t", "%b"]:
        for sent, expected in values:
            (got,) = connection.execute(f"SELECT {placeholder}", (sent,)).fetchone()
            assert got == expected, (placeholder, sent, got)
        (got,) = connection.execute(f"SELECT {placeholder}->>'a'", (Jsonb({"a": "x"}),)).fetchone()
        assert got == "x", (placeholder, got)
        rows = connection.execute(f"SELECT unnest({placeholder}::text[])", (["a", "b"],)).fetchall()
        assert rows == [("a",), ("b",)], (placeholder, rows)
print("ok")
