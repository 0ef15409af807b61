#!/usr/bin/env python3
"""Makes records of a case file out of statements, with the answers of a PostgreSQL server.

    from_postgres.py --postgres 'host=/tmp/pg port=5599 user=postgres' [--beside 'port=5432 user=root'] \
        'Title of the file' < statements.sql > cases/name.slt

One statement a line; lines that begin with # are kept as they are. With --beside, what the other server
answers otherwise is left out of the file and told on standard error instead: each such line is to be
mended, or to be written into docs/testing.md. Needs psycopg 3.
"""

import argparse
import sys

import psycopg


def run(connection, statement):
    """Returns ("rows", lists of texts), ("done", count) or ("error", SQLSTATE)."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            result = cursor.pgresult
            if cursor.description is None:
                return "done", cursor.rowcount
            # Every value as the text the server sent.
            texts = lambda row: [result.get_value(row, at) for at in range(result.nfields)]
            rows = [texts(row) for row in range(result.ntuples)]
            return "rows", [[None if v is None else v.decode() for v in row] for row in rows]
    except psycopg.Error as error:
        return "error", error.sqlstate or str(error)


def connect(dsn):
    return psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor)


def cell(value):
    return "NULL" if value is None else value.replace("\n", "\\n") or "(empty)"


def record(statement, kind, answer):
    if kind == "error":
        return f"statement error {answer}:\n{statement}\n"
    if kind == "done":
        head = "statement ok" if answer < 0 else f"statement count {answer}"
        return f"{head}\n{statement}\n"
    columns = len(answer[0]) if answer else 1
    lines = [" ".join(cell(value) for value in row) for row in answer]
    is_told_apart = columns == 1 or not any(" " in cell(v) for row in answer for v in row)
    if not is_told_apart or any(line != line.strip() for line in lines):
        raise ValueError(f"values with blanks beside others: {statement}")
    order = "" if len(lines) < 2 or "order by" in statement.lower() else " rowsort"
    body = "\n".join(sorted(lines) if order else lines)
    head = f"query {'T' * columns}{order}\n{statement}\n----\n"
    return head + (body + "\n" if lines else "")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--postgres", required=True)
    arguments.add_argument("--beside")
    arguments.add_argument("title")
    arguments = arguments.parse_args()
    postgres = connect(arguments.postgres)
    beside = connect(arguments.beside) if arguments.beside else None
    print(f"# {arguments.title}\n# Made by from_postgres.py: the answers are PostgreSQL's.\n")
    made = 0
    for line in sys.stdin:
        line = line.strip()
        if not line or line.startswith("#"):
            print(line)
            continue
        expected = run(postgres, line)
        found = run(beside, line) if beside else expected
        if found != expected:
            print(f"{line}\n    PostgreSQL: {expected}\n    here:       {found}", file=sys.stderr)
            continue
        try:
            print(record(line, *expected))
            made += 1
        except ValueError as error:
            print(error, file=sys.stderr)
    print(f"{made} records", file=sys.stderr)


if __name__ == "__main__":
    main()
