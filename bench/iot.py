#!/usr/bin/env python3
"""TSBS iot: trucks that tell where they are and how they do. Loads the same rows into all systems of SQL named, batch by batch in turn,
runs the 13 query types (and two counts) on all in turn, compares answers, and prints medians and 95th percentiles.

    bench/iot.py TRUCKS HOURS [--loaded] [--runs 11] SYSTEM [SYSTEM ...]

A SYSTEM is named as for tsbs.py: cnosdb, postgres, duckdb or chdb. A row of `readings` and one of `diagnostics` a truck every 10 s: 8 tags,
7 and 3 fields. One row in a hundred is missing, one batch in twenty comes a batch late. What differs from TSBS: a truck drives and
rests by turns of 10 minutes to 6 hours, so that the questions about driving have answers.
"""

import dataclasses
import random
import string

from peers import Table, stamp
from side_by_side import compare

TAGS = ["name", "fleet", "driver", "model", "device_version", "load_capacity", "fuel_capacity", "nominal_fuel_consumption"]
FIELDS = ["latitude", "longitude", "elevation", "velocity", "heading", "grade", "fuel_consumption"]
READINGS = Table("readings", TAGS, dict.fromkeys(FIELDS, "double precision"))
DIAGNOSTICS = Table("diagnostics", TAGS, {"fuel_state": "double precision", "current_load": "double precision", "status": "bigint"})
FLEETS = ["East", "West", "North", "South"]
DRIVERS = ["Derek", "Rodney", "Albert", "Andy", "Seth", "Trish"]
MODELS = [("F-150", 2000, 200, 15), ("G-2000", 5000, 300, 19), ("H-2", 1500, 150, 12)]
STEP = 10
BATCH = 10_000
MISSING = 0.01
LATE = 0.05


class Truck:
    """One truck, at a time."""

    def __init__(self, number, source):
        self.source = source
        model, self.capacity, self.tank, self.nominal = source.choice(MODELS)
        version = f"v{source.choice(['1.0', '1.5', '2.0', '2.3'])}"
        tags = [f"truck_{number}", source.choice(FLEETS), source.choice(DRIVERS), model, version, self.capacity, self.tank, self.nominal]
        self.tags = "\t".join(map(str, tags))
        self.latitude, self.longitude = source.uniform(-60, 60), source.uniform(-180, 180)
        self.elevation, self.heading, self.velocity = source.uniform(0, 500), source.uniform(0, 360), 0.0
        self.fuel, self.load, self.status = source.random(), source.uniform(0, self.capacity), 0
        self.drives, self.turn = source.random() < 0.5, 0

    def step(self):
        source = self.source
        self.turn -= 1
        if self.turn < 0:
            self.drives, self.turn = not self.drives, source.randrange(60, 2_160)
            self.load = source.uniform(0, self.capacity)
        walk = source.uniform
        self.velocity = min(100.0, max(20.0, self.velocity + walk(-10, 10))) if self.drives else 0.0
        if self.drives:
            self.latitude = min(90.0, max(-90.0, self.latitude + walk(-0.005, 0.005)))
            self.longitude = min(180.0, max(-180.0, self.longitude + walk(-0.005, 0.005)))
            self.elevation = min(5_000.0, max(0.0, self.elevation + walk(-10, 10)))
            self.heading = (self.heading + walk(-5, 5)) % 360
            self.fuel = self.fuel - 0.0004 if self.fuel > 0.01 else 1.0
        if source.random() < 0.002:
            self.status = source.randrange(6)

    def readings(self):
        consumption = self.nominal * self.source.uniform(0.7, 1.5) if self.drives else 0.0
        grade = self.source.uniform(-10, 10) if self.drives else 0.0
        return (
            f"{self.tags}\t{self.latitude:.5f}\t{self.longitude:.5f}\t{self.elevation:.0f}\t{self.velocity:.0f}\t{self.heading:.0f}"
            f"\t{grade:.0f}\t{consumption:.1f}\n"
        )

    def diagnostics(self):
        return f"{self.tags}\t{self.fuel:.1f}\t{self.load:.0f}\t{self.status}\n"


def in_order(trucks, hours):
    """Yields tables and COPY text of about BATCH rows, in order of time."""
    source = random.Random(11)
    all_trucks = [Truck(number, source) for number in range(trucks)]
    lines = {"readings": [], "diagnostics": []}
    for tick in range(hours * 3600 // STEP):
        stamped = stamp(tick * STEP)
        for truck in all_trucks:
            truck.step()
            if source.random() >= MISSING:
                lines["readings"].append(f"{stamped}\t{truck.readings()}")
            if source.random() >= MISSING:
                lines["diagnostics"].append(f"{stamped}\t{truck.diagnostics()}")
        for table in [READINGS, DIAGNOSTICS]:
            if len(lines[table.name]) >= BATCH:
                yield table, "".join(lines[table.name])
                lines[table.name].clear()
    for table in [READINGS, DIAGNOSTICS]:
        if lines[table.name]:
            yield table, "".join(lines[table.name])


def batches(trucks, hours):
    """The same, some of them late."""
    source, late = random.Random(12), []
    for batch in in_order(trucks, hours):
        if not late and source.random() < LATE:
            late.append(batch)
            continue
        yield batch
        yield from late
        late.clear()
    yield from late


@dataclasses.dataclass
class Query:
    """SQL in which {bin:MINUTES} is a window of time, {seconds:TIME} its seconds."""

    name: str
    text: str

    def sql(self, system):
        parts = []
        for text, field, given, _ in string.Formatter().parse(self.text):
            parts.append(text)
            if field == "bin":
                parts.append(system.window.format(minutes=given))
            elif field == "seconds":
                parts.append(system.seconds.format(time=given))
        return "".join(parts)


def questions(trucks, hours, source):
    """Returns the 13 query types and a count of each table, with parameters chosen by `source`."""
    fleet = f"fleet = '{source.choice(FLEETS)}'"

    def within(seconds):
        start = source.randrange(0, max(1, hours * 3600 - seconds))
        return f"time >= '{stamp(start)}' AND time < '{stamp(start + seconds)}'"

    def sessions(length, rests):
        length = min(length, hours)
        return (
            "SELECT name, driver FROM (SELECT name, driver, {bin:10} AS ten_minutes FROM readings "
            f"WHERE {fleet} AND {within(length * 3600)} GROUP BY name, driver, ten_minutes HAVING avg(velocity) > 1) AS r "
            f"GROUP BY name, driver HAVING count(*) > {length * 6 - rests} ORDER BY name, driver"
        )

    def latest(columns, table, condition):
        return f"SELECT DISTINCT ON (name) {columns} FROM {table} WHERE {condition} ORDER BY name, time DESC"

    last_diagnostics = latest("name, driver, load_capacity, fuel_state, current_load", "diagnostics", fleet)
    driven = (
        "SELECT fleet, name, driver, {bin:10} AS ten_minutes, avg(velocity) AS mean FROM readings "
        "GROUP BY fleet, name, driver, ten_minutes"
    )
    return [
        Query("single-last-loc", latest("name, driver, longitude, latitude", "readings", f"name = 'truck_{source.randrange(trucks)}'")),
        Query("last-loc", latest("name, driver, longitude, latitude", "readings", fleet)),
        Query("low-fuel", f"SELECT name, driver, fuel_state FROM ({last_diagnostics}) AS d WHERE fuel_state <= 0.1 ORDER BY name"),
        Query(
            "high-load",
            f"SELECT name, driver, current_load, load_capacity FROM ({last_diagnostics}) AS d "
            "WHERE current_load >= 0.9 * CAST(load_capacity AS double precision) ORDER BY name",
        ),
        Query(
            "stationary-trucks",
            f"SELECT name, driver FROM readings WHERE {fleet} AND {within(600)} GROUP BY name, driver HAVING avg(velocity) < 1 ORDER BY name, driver",
        ),
        Query("long-driving-sessions", sessions(4, 2)),
        Query("long-daily-sessions", sessions(24, 60)),
        Query(
            "avg-vs-projected-fuel-consumption",
            "SELECT fleet, avg(fuel_consumption) AS mean, avg(CAST(nominal_fuel_consumption AS double precision)) AS projected FROM readings "
            "WHERE velocity > 1 GROUP BY fleet ORDER BY fleet",
        ),
        Query(
            "avg-daily-driving-duration",
            f"SELECT fleet, name, driver, avg(driven) AS hours FROM (SELECT fleet, name, driver, date_trunc('day', ten_minutes) AS day, count(*) / 6.0 AS driven "
            f"FROM ({driven}) AS w WHERE mean > 1 GROUP BY fleet, name, driver, day) AS d GROUP BY fleet, name, driver ORDER BY fleet, name, driver",
        ),
        Query(
            "avg-daily-driving-session",
            "SELECT name, date_trunc('day', start) AS day, avg({seconds:stop} - {seconds:start}) AS duration FROM ("
            "SELECT name, ten_minutes AS start, lead(ten_minutes) OVER (PARTITION BY name ORDER BY ten_minutes) AS stop, drives FROM ("
            "SELECT name, ten_minutes, drives, lag(drives) OVER (PARTITION BY name ORDER BY ten_minutes) AS before FROM ("
            f"SELECT name, ten_minutes, CASE WHEN mean > 5 THEN 1 ELSE 2 END AS drives FROM ({driven}) AS w) AS s) AS c "
            "WHERE drives <> before AND before > 0) AS d WHERE drives = 1 AND {seconds:stop} > {seconds:start} GROUP BY name, day ORDER BY name, day",
        ),
        Query(
            "avg-load",
            "SELECT fleet, model, avg(mean / CAST(load_capacity AS double precision)) AS share FROM (SELECT fleet, model, name, load_capacity, "
            "avg(current_load) AS mean FROM diagnostics GROUP BY fleet, model, name, load_capacity) AS l GROUP BY fleet, model ORDER BY fleet, model",
        ),
        Query(
            "daily-activity",
            "SELECT fleet, model, day, sum(active) / 144.0 AS activity FROM (SELECT fleet, model, date_trunc('day', ten_minutes) AS day, count(*) AS active "
            "FROM (SELECT fleet, model, name, {bin:10} AS ten_minutes FROM diagnostics GROUP BY fleet, model, name, ten_minutes HAVING avg(status) < 1) AS w "
            "GROUP BY fleet, model, day) AS a GROUP BY fleet, model, day ORDER BY fleet, model, day",
        ),
        Query(
            "breakdown-frequency",
            "SELECT model, count(*) AS breakdowns FROM (SELECT model, broken, lead(broken) OVER (PARTITION BY name ORDER BY ten_minutes) AS next FROM ("
            "SELECT model, name, {bin:10} AS ten_minutes, CASE WHEN avg(CASE WHEN status = 0 THEN 1.0 ELSE 0.0 END) >= 0.5 THEN 1 ELSE 2 END AS broken "
            "FROM diagnostics GROUP BY model, name, ten_minutes) AS w) AS b WHERE broken = 2 AND next = 1 GROUP BY model ORDER BY model",
        ),
        Query("count(*) of readings", "SELECT count(*) FROM readings"),
        Query("count(*) of diagnostics", "SELECT count(*) FROM diagnostics"),
    ]


if __name__ == "__main__":
    compare("trucks", [READINGS, DIAGNOSTICS], batches, questions, runs=11)
