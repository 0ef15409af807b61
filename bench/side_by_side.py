"""Loads the same rows into several systems and asks them the same, each in turn with the others; compares answers and prints times."""

import argparse
import os
import random
import statistics
import sys
import time

from peers import connect


def family(pid):
    yield int(pid)
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                if stat.read().rsplit(")", 1)[1].split()[1] == str(pid):
                    yield int(name)
        except OSError:
            continue


def cpu_seconds(pid):
    """User and system time of a process and of all its children, ended ones too."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                parts = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(map(int, parts[11:15] if one == int(pid) else parts[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def resident_mb(pid):
    """Resident memory that is not shared with others, of a process and its children."""
    total = 0
    for one in family(pid):
        try:
            with open(f"/proc/{one}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_", "Pss_Shmem")))
        except OSError:
            continue
    return total / 1024


def load(systems, batches):
    """Makes the tables anew, and gives each batch to all systems in turn."""
    for one in systems:
        one.create()
    rows, values, took, cpu = 0, 0, [0.0] * len(systems), [0.0] * len(systems)
    for table, text in batches:
        count = text.count("\n")
        rows, values = rows + count, values + count * len(table.fields)
        for at, one in enumerate(systems):
            batch = one.batch(text)
            before, begin = cpu_seconds(one.pid), time.monotonic()
            one.load(table, batch)
            took[at] += time.monotonic() - begin
            cpu[at] += cpu_seconds(one.pid) - before
    for at, one in enumerate(systems):
        memory, before, begin = resident_mb(one.pid), cpu_seconds(one.pid), time.monotonic()
        size = one.finish()
        late, cpu[at] = time.monotonic() - begin, cpu[at] + cpu_seconds(one.pid) - before
        print(
            f"{one.name:16} {rows:,} rows, {rows / took[at]:,.0f} rows/s, {cpu[at] / rows * 1e6:.2f} CPU-s per M rows with all that came after it "
            f"({late:.1f} s), {memory:,.0f} MB private after the load, {size / values:.3f} bytes per value",
            flush=True,
        )


def ask(systems, chosen):
    """Asks all systems the same in turn, as often as lists of queries are given; each list has all types, with parameters of its own. The
    order of the systems changes from run to run: what one leaves running, and in the CPU's caches, meets each of the others."""
    columns = "".join(f"{one.name:>24}" for one in systems)
    print("median · 95th percentile, ms".ljust(36) + columns, flush=True)
    for at in range(len(chosen[0])):
        times = [[] for _ in systems]
        for number, run in enumerate(chosen):
            query = run[at]
            expected, told_by = None, None
            for one, spent in random.Random(number).sample(list(zip(systems, times)), len(systems)):
                text = one.text(query)
                if text is None:
                    continue
                begin = time.monotonic()
                answer = one.ask(text)
                spent.append((time.monotonic() - begin) * 1000)
                answer = one.comparable(query, answer)
                if answer is None:
                    continue
                if expected is None:
                    expected, told_by = answer, one.name
                elif answer != expected:
                    sys.exit(f"{one.name}: {query.name}: another answer than {told_by} ({len(answer)} and {len(expected)} values)\n{text}")
        cells = []
        for spent in times:
            high = sorted(spent)[max(0, -(-len(spent) * 95 // 100) - 1)] if spent else 0
            cells.append(f"{statistics.median(spent):.2f} · {high:.2f}" if spent else "–")
        print(f"{chosen[0][at].name:36}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    print("private memory after the queries: " + ", ".join(f"{one.name} {resident_mb(one.pid):,.0f} MB" for one in systems))


def compare(scale, tables, batches, questions, runs):
    """Does what the command line says: loads `batches` of so much of a `scale` and of hours, asks the `questions` of each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument(scale, type=int)
    parser.add_argument("hours", type=int)
    parser.add_argument("systems", nargs="+")
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--runs", type=int, default=runs)
    wanted = parser.parse_args()
    size = getattr(wanted, scale), wanted.hours
    systems = [connect(one, tables) for one in wanted.systems]
    if not wanted.loaded:
        load(systems, batches(*size))
    ask(systems, [questions(*size, random.Random(run)) for run in range(wanted.runs)])
