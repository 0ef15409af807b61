//! Random queries on a table of ours, and on a temporary table of the same rows that DataFusion reads from
//! memory: pruning, statistics, merging and pushing down must change no answer.
//!
//! `CNOSDB_RANDOM_QUERIES` sets how many, `CNOSDB_RANDOM_SEED` where the random numbers begin (docs/testing.md).

use std::collections::BTreeMap;
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::{Server, http};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::nodes::Nodes;
use crate::writers::connect;

/// Three days, a point every ten seconds: more buckets than one, more pages than one.
const TICKS: i64 = 3 * 8_640;
/// So many points has a long series: more than a row group.
const LONG_TICKS: i64 = 30_000;
/// After so many queries the rows are changed.
const QUERIES_BETWEEN_CHANGES: usize = 100;

/// Host, region, and the tick: the key of a row.
type Key = (String, Option<String>, i64);

/// Float, integer, unsigned, boolean and text, as SQL.
type Fields = [Option<String>; 5];

const FIELDS: [&str; 5] = ["f", "i", "u", "b", "s"];

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn quoted(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |text| format!("'{text}'"))
}

fn instant(tick: i64) -> String {
    let (day, second) = (tick.div_euclid(8_640) + 1, tick.rem_euclid(8_640) * 10);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("'2026-01-{day:02}T{hour:02}:{minute:02}:{:02}Z'", second % 60)
}

struct Rows {
    random: StdRng,
    model: BTreeMap<Key, Fields>,
}

impl Rows {
    fn host(&mut self) -> String {
        format!("h{}", self.random.random_range(0..6))
    }

    fn region(&mut self) -> Option<String> {
        let at = self.random.random_range(0..4);
        ["eu", "us", "asia"].get(at).map(|region| (*region).to_owned())
    }

    fn tick(&mut self) -> i64 {
        self.random.random_range(0..TICKS)
    }

    /// A value of the column, which sums to the same in any order.
    fn value(&mut self, field: usize) -> String {
        let random = &mut self.random;
        match field {
            0 => format!("{}", f64::from(random.random_range(-400..400)) / 4.0),
            1 => random.random_range(-50..50).to_string(),
            2 => random.random_range(0..30).to_string(),
            3 => random.random_bool(0.5).to_string(),
            _ => format!("'{}'", ["", "on", "off", "o''k", "ünder"].choose(random).unwrap()),
        }
    }

    fn row(&mut self) -> (Key, Fields) {
        let key = (self.host(), self.region(), self.tick());
        let mut fields = Fields::default();
        for (at, field) in fields.iter_mut().enumerate() {
            *field = self.random.random_bool(0.8).then(|| self.value(at));
        }
        (key, fields)
    }

    /// Writes rows, some of them anew; deletes some; flushes and compacts now and then.
    async fn change(&mut self, client: &Client) {
        for _ in 0..4 {
            // Columns that are not named keep their values; a NULL that is named is stored.
            let named = [(); 5].map(|()| self.random.random_bool(0.8));
            let names = FIELDS.iter().zip(named).filter(|(_, named)| *named);
            let names: String = names.map(|(field, _)| format!(", {field}")).collect();
            let mut values = Vec::new();
            for _ in 0..self.random.random_range(1..300) {
                let (mut key, fields) = self.row();
                if self.random.random_bool(0.2)
                    && let Some(at) = self.random.random_range(0..=self.model.len()).checked_sub(1)
                {
                    key = self.model.keys().nth(at).unwrap().clone();
                }
                let (host, region, tick) = &key;
                let region = quoted(region.as_deref());
                let mut value = format!("({}, '{host}', {region}", instant(*tick));
                let old = self.model.entry(key).or_default();
                for ((old, new), named) in old.iter_mut().zip(fields).zip(named) {
                    if named {
                        write!(value, ", {}", new.as_deref().unwrap_or("NULL")).unwrap();
                        *old = new;
                    }
                }
                values.push(format!("{value})"));
            }
            let insert =
                format!("INSERT INTO t (time, host, region{names}) VALUES {}", values.join(", "));
            client.batch_execute(&insert).await.unwrap();
            if self.random.random_bool(0.3) {
                client.batch_execute("COMPACT DATABASE d").await.unwrap();
            }
        }
        let (host, from) = (self.host(), self.tick());
        let to = from + self.random.random_range(0..2_000);
        let delete = format!(
            "DELETE FROM t WHERE host = '{host}' AND time >= {} AND time < {}",
            instant(from),
            instant(to)
        );
        client.batch_execute(&delete).await.unwrap();
        self.model.retain(|(of, _, tick), _| *of != host || !(from..to).contains(tick));
    }

    /// Puts the rows into the temporary table.
    async fn copy(&self, client: &Client) {
        client.batch_execute("DELETE FROM m").await.unwrap();
        let rows: Vec<_> = self.model.iter().collect();
        for rows in rows.chunks(1_000) {
            let mut insert = "INSERT INTO m (time, host, region, f, i, u, b, s) VALUES ".to_owned();
            for (at, ((host, region, tick), fields)) in rows.iter().enumerate() {
                let comma = if at > 0 { ", " } else { "" };
                let (time, region) = (instant(*tick), quoted(region.as_deref()));
                write!(insert, "{comma}({time}, '{host}', {region}").unwrap();
                for field in *fields {
                    write!(insert, ", {}", field.as_deref().unwrap_or("NULL")).unwrap();
                }
                insert.push(')');
            }
            client.batch_execute(&insert).await.unwrap();
        }
    }

    fn comparison(&mut self) -> &'static str {
        ["=", "<>", "<", "<=", ">", ">="].choose(&mut self.random).unwrap()
    }

    fn condition(&mut self, depth: usize) -> String {
        let op = self.comparison();
        let field = self.random.random_range(0..5);
        let name = FIELDS[field];
        match self.random.random_range(0..if depth > 0 { 14 } else { 10 }) {
            0 | 1 => format!("time {op} {}", instant(self.random.random_range(-100..TICKS + 100))),
            2 => {
                let from = self.tick();
                let to = from + self.random.random_range(-10..4_000);
                format!("time BETWEEN {} AND {}", instant(from), instant(to))
            }
            3 => format!("host {op} '{}'", self.host()),
            4 => {
                format!("region {op} {}", quoted(Some(&self.region().unwrap_or("nowhere".into()))))
            }
            5 => format!("host IN ('{}', '{}', 'none')", self.host(), self.host()),
            6 => format!("region IS {}NULL", ["", "NOT "].choose(&mut self.random).unwrap()),
            7 => ["host LIKE 'h%'", "region LIKE '%s%'", "host NOT LIKE '_2'", "region ~ '^(e|u)'"]
                .choose(&mut self.random)
                .unwrap()
                .to_string(),
            8 => format!("{name} IS {}NULL", ["", "NOT "].choose(&mut self.random).unwrap()),
            9 if field == 3 => format!("b = {}", self.value(3)),
            9 => format!("{name} {op} {}", self.value(field)),
            10 => format!("NOT ({})", self.condition(depth - 1)),
            11 => format!("({} OR {})", self.condition(depth - 1), self.condition(depth - 1)),
            _ => format!("({} AND {})", self.condition(depth - 1), self.condition(depth - 1)),
        }
    }

    fn filter(&mut self) -> String {
        match self.random.random_range(0..5) {
            0 => String::new(),
            _ => format!(" WHERE {}", self.condition(2)),
        }
    }

    fn aggregate(&mut self) -> String {
        let (field, numeric) = (self.random.random_range(0..5), self.random.random_range(0..3));
        let (field, numeric) = (FIELDS[field], FIELDS[numeric]);
        match self.random.random_range(0..9) {
            0 => "count(*)".to_owned(),
            1 => format!("count({field})"),
            2 => format!("min({field})"),
            3 => format!("max({field})"),
            4 => format!("sum({numeric})"),
            5 => format!("avg({numeric})"),
            6 => format!("count(DISTINCT {field})"),
            7 => ["min(time)", "max(time)", "min(host)", "max(region)", "count(region)"]
                .choose(&mut self.random)
                .unwrap()
                .to_string(),
            _ => format!("count(*) FILTER (WHERE {})", self.condition(0)),
        }
    }

    /// A query of `{t}` whose rows have one order.
    fn query(&mut self) -> String {
        let filter = self.filter();
        let direction = *["", " DESC"].choose(&mut self.random).unwrap();
        match self.random.random_range(0..8) {
            0 | 1 => {
                let mut columns = vec!["time", "host", "region"];
                columns.extend(FIELDS.into_iter().filter(|_| self.random.random_bool(0.5)));
                let limit = match self.random.random_range(0..3) {
                    0 => String::new(),
                    1 => format!(" LIMIT {}", self.random.random_range(0..20)),
                    _ => format!(" LIMIT 7 OFFSET {}", self.random.random_range(0..50)),
                };
                let columns = columns.join(", ");
                format!(
                    "SELECT {columns} FROM {{t}}{filter} ORDER BY time{direction}, host, region{limit}"
                )
            }
            2 => {
                let (one, two, three) = (self.aggregate(), self.aggregate(), self.aggregate());
                format!("SELECT {one}, {two}, {three} FROM {{t}}{filter}")
            }
            3 | 4 => {
                let by = *["host", "region", "host, region", "b", "i % 7", "s"]
                    .choose(&mut self.random)
                    .unwrap();
                let (one, two) = (self.aggregate(), self.aggregate());
                format!("SELECT {by}, {one}, {two} FROM {{t}}{filter} GROUP BY {by} ORDER BY {by}")
            }
            5 => {
                let width = *["1 hour", "7 minutes", "1 day"].choose(&mut self.random).unwrap();
                let (one, two) = (self.aggregate(), self.aggregate());
                format!(
                    "SELECT date_bin('{width}', time) AS w, host, {one}, {two} FROM {{t}}{filter} \
                     GROUP BY w, host ORDER BY w{direction}, host LIMIT 40"
                )
            }
            6 => {
                let of =
                    *["host", "region", "host, region", "b, s"].choose(&mut self.random).unwrap();
                format!("SELECT DISTINCT {of} FROM {{t}}{filter} ORDER BY {of}")
            }
            _ => {
                let (function, field) = (
                    ["first", "last"].choose(&mut self.random).unwrap(),
                    FIELDS[self.random.random_range(0..5)],
                );
                // Rows of one host and region have times of their own.
                format!(
                    "SELECT host, region, {function}(time, {field}), max(time) FROM {{t}}{filter} \
                     GROUP BY host, region ORDER BY host, region"
                )
            }
        }
    }
}

/// A query whose answer the statistics of row groups may tell a part of.
fn query_of_statistics(random: &mut StdRng) -> String {
    let by = *[
        "",
        "host",
        "host, region",
        "host, region, date_bin('10 days', time)",
        "date_trunc('month', time)",
        "host, date_bin('3 days', time)",
        "host, date_bin('1 day', time, TIMESTAMP '2026-01-01 07:00')",
        "time::date",
        "time::time",
        "upper(host)",
        "string_to_array(host, 'h')",
        "date_trunc('day', time, 'America/St_Johns')",
        "region = (SELECT min(region) FROM {t})",
    ]
    .choose(random)
    .unwrap();
    let mut aggregate = || {
        let (field, number) =
            (FIELDS[random.random_range(0..5)], FIELDS[random.random_range(0..3)]);
        match random.random_range(0..10) {
            0 => "count(*)".to_owned(),
            1 => format!("count({field})"),
            2 => format!("min({number})"),
            3 => format!("max({number})"),
            4 | 5 => format!("sum({number})"),
            6 => format!("avg({number})"),
            // Of several series' rows at one time any may be the first.
            7 if by.starts_with("host, region") => format!("first(time, {field})"),
            8 if by.starts_with("host, region") => format!("last_value({field} ORDER BY time)"),
            _ => "min(time), max(time)".to_owned(),
        }
    };
    let (one, two) = (aggregate(), aggregate());
    let from = random.random_range(0..LONG_TICKS / 2);
    let filter = match random.random_range(0..4) {
        0 => String::new(),
        1 => format!(" WHERE time >= {}", instant(from)),
        2 => format!(" WHERE time < {} AND host <> 'h1'", instant(from + LONG_TICKS / 2)),
        _ => " WHERE region IS NULL OR region = 'eu'".to_owned(),
    };
    if by.is_empty() {
        return format!("SELECT {one}, {two} FROM {{t}}{filter}");
    }
    format!("SELECT {by}, {one}, {two} FROM {{t}}{filter} GROUP BY {by} ORDER BY {by}")
}

/// Returns the rows of an answer, or why there is none.
async fn answer(client: &Client, query: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client.simple_query(query).await.map_err(|error| {
        let error = error.as_db_error();
        error.map_or("no answer".to_owned(), |error| error.code().code().to_owned())
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

/// Returns a query with other constants: the plan that was kept for one is the other's too.
fn with_other_constants(query: &str) -> String {
    let days = ["2026-01-01", "2026-01-02", "2026-01-03"];
    let hosts = ["'h0'", "'h1'", "'h2'", "'h3'", "'h4'", "'h5'"];
    let mut query = query.to_owned();
    for texts in [days.as_slice(), hosts.as_slice()] {
        query = query.replace(texts[0], "\u{1}");
        for pair in texts.windows(2) {
            query = query.replace(pair[1], pair[0]);
        }
        query = query.replace('\u{1}', texts[texts.len() - 1]);
    }
    query
}

/// Compares a query on a table with the same on its rows in memory. Returns how many rows it has.
async fn compare_one(client: &Client, query: &str, name: &str) -> Option<usize> {
    let ours = answer(client, &query.replace("{t}", "t")).await;
    let memory = answer(client, &query.replace("{t}", "m")).await;
    if let (Ok(ours), Ok(memory)) = (&ours, &memory) {
        let differ = ours.iter().zip(memory).position(|(ours, memory)| ours != memory);
        let differ = differ.map(|at| (&ours[at], &memory[at]));
        assert!(differ.is_none(), "{name}: {query}: {differ:?}");
    }
    assert_eq!(ours, memory, "{name}: {query}");
    ours.ok().map(|rows| rows.len())
}

/// Compares random queries on a table with so many shards with those on its rows in memory.
async fn compare(client: &Client, shards: usize, queries: usize) {
    let columns = "f DOUBLE, i BIGINT, u BIGINT UNSIGNED, b BOOLEAN, s STRING, TAGS(host, region)";
    let setup = format!(
        "CREATE DATABASE d WITH VNODE_DURATION '1d' SHARD {shards}; SET search_path = d; \
         CREATE TABLE t ({columns});"
    );
    client.batch_execute(&setup).await.unwrap();
    client.batch_execute("CREATE TEMP TABLE m AS SELECT * FROM t").await.unwrap();
    let seed = number("CNOSDB_RANDOM_SEED", 1) as u64;
    let mut rows = Rows { random: StdRng::seed_from_u64(seed), model: BTreeMap::new() };
    let (mut answered, mut with_rows) = (0, 0);
    for at in 0..queries {
        if at % QUERIES_BETWEEN_CHANGES == 0 {
            rows.change(client).await;
            rows.copy(client).await;
        }
        let (query, name) = (rows.query(), format!("query {at} of seed {seed}"));
        let found = compare_one(client, &query, &name).await;
        // From the second time on its plan is kept.
        assert_eq!(found, compare_one(client, &query, &name).await, "{name}: {query}");
        compare_one(client, &with_other_constants(&query), &name).await;
        answered += usize::from(found.is_some());
        with_rows += usize::from(found.is_some_and(|rows| rows > 1));
    }
    println!("{answered} queries were answered, {with_rows} with several rows");
    assert!(with_rows > answered / 3, "hardly any query finds something");
}

#[tokio::test]
async fn random_queries_answer_as_over_rows_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = connect(server.port).await.unwrap();
    let queries = number("CNOSDB_RANDOM_QUERIES", 400);
    compare(&client, 2, queries).await;
    let metrics = http(server.http_port, "GET /metrics", &[], b"").unwrap().body;
    let hits = metrics.lines().find_map(|line| {
        line.strip_prefix("cnosdb_cache_hits_total{cache=\"plans\"} ")?.parse::<f64>().ok()
    });
    let hits = hits.expect("the hits are counted");
    println!("{hits} plans were kept");
    assert!(hits > queries as f64 / 2.0, "{hits} plans were kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_whose_stages_run_on_three_nodes_answer_as_over_rows_in_memory() {
    let nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    client.batch_execute("SET min_remote_stage_rows = 1").await.unwrap();
    compare(&client, 3, number("CNOSDB_RANDOM_QUERIES", 400) / 2).await;
}

#[tokio::test]
async fn aggregates_out_of_statistics_are_those_of_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let client = connect(server.port).await.unwrap();
    let columns = "f DOUBLE, i BIGINT, u BIGINT UNSIGNED, b BOOLEAN, s STRING, TAGS(host, region)";
    let long = format!(
        "CREATE DATABASE d; SET search_path = d; CREATE TABLE t ({columns});
         INSERT INTO t (time, host, region, f, i, u, b, s)
         SELECT {} + n * INTERVAL '10 seconds', 'h' || h, CASE h WHEN 1 THEN 'eu' WHEN 2 THEN 'us' END,
             CASE WHEN n % 5 > 0 THEN n % 800 / 4.0 END, CASE WHEN n < 20000 THEN n - 9000 END, n % 30,
             n % 2 = 0, 's' || n % 3
         FROM generate_series(0, {LONG_TICKS} - 1) AS a(n), generate_series(1, 3) AS b(h);
         COMPACT DATABASE d",
        format_args!("TIMESTAMP {}", instant(0)),
    );
    client.batch_execute(&long).await.unwrap();
    client.batch_execute("CREATE TEMP TABLE m AS SELECT * FROM t").await.unwrap();
    let seed = number("CNOSDB_RANDOM_SEED", 1) as u64;
    let mut rows = Rows { random: StdRng::seed_from_u64(seed), model: BTreeMap::new() };
    let mut told = 0;
    for round in 0..4 {
        for at in 0..30 {
            let query = query_of_statistics(&mut rows.random);
            let plan = answer(&client, &format!("EXPLAIN {}", query.replace("{t}", "t"))).await;
            let plan = plan.unwrap().concat().into_iter().flatten().collect::<String>();
            told += usize::from(plan.contains("RowGroupStatisticsExec"));
            let name = format!("query {at} of round {round} of seed {seed}");
            compare_one(&client, &query, &name).await;
        }
        rows.change(&client).await;
        if rows.random.random_bool(0.5) {
            client.batch_execute("COMPACT DATABASE d").await.unwrap();
        }
        client.batch_execute("DELETE FROM m; INSERT INTO m SELECT * FROM t").await.unwrap();
    }
    println!("statistics told a part of {told} answers");
    assert!(told > 15, "statistics told a part of {told} answers");
}
