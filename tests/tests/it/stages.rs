//! Stages of queries on three nodes: what travels, and what happens where a node is lost.

use tokio_postgres::Client;

use crate::nodes::{Nodes, lines};

const HOSTS: usize = 20;
const ROWS: usize = 30_000;

/// Three nodes with rows on each of them, and a client of the first.
async fn with_rows() -> (Nodes, Client) {
    let nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    let setup = format!(
        "CREATE DATABASE d WITH SHARD 3; SET search_path = d;
         CREATE TABLE m (v DOUBLE, n BIGINT, TAGS(host));
         INSERT INTO m (time, host, v, n)
         SELECT i * 1000, 'h' || i % {HOSTS}, i * 0.5, i FROM generate_series(1, {ROWS}) AS g(i);"
    );
    client.batch_execute(&setup).await.unwrap();
    (nodes, client)
}

/// Returns the numbers that a metric has in the lines of a plan that name an operator.
fn metric(plan: &str, operator: &str, name: &str) -> Vec<f64> {
    let named = plan.lines().filter(|line| line.contains(operator));
    let values = named.filter_map(|line| {
        let (_, rest) = line.split_once(&format!("{name}="))?;
        let mut words = rest.split([' ', ',', ']']);
        let number: f64 = words.next()?.parse().ok()?;
        Some(if words.next() == Some("K") { number * 1_000.0 } else { number })
    });
    values.collect()
}

async fn plan(client: &Client, query: &str) -> String {
    lines(client, &format!("EXPLAIN ANALYZE {query}")).await[0][1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_aggregates_and_first_rows_travel_instead_of_all_rows() {
    let (_nodes, client) = with_rows().await;
    let all = ROWS as f64;
    for (query, at_most) in [
        ("SELECT host, avg(v), count(*) FROM m GROUP BY host", 3 * HOSTS),
        ("SELECT date_trunc('hour', time) AS h, host, avg(v) FROM m GROUP BY h, host", 3 * HOSTS),
        ("SELECT sum(n), max(v) FROM m WHERE n % 7 = 3", 3),
        ("SELECT * FROM m ORDER BY v DESC LIMIT 5", 15),
        ("SELECT * FROM m WHERE n = 4711", 1),
    ] {
        let plan = plan(&client, query).await;
        let read: f64 = metric(&plan, "DistributedLeafExec", "output_rows").iter().sum();
        assert!((read - all).abs() < 1.0, "{read} rows are read: {plan}");
        let travelled: f64 = metric(&plan, "NetworkCoalesceExec", "output_rows").iter().sum();
        assert!(travelled <= at_most as f64, "{query}: {travelled} rows travelled: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_above_a_join_takes_no_rows_from_what_is_joined() {
    let (_nodes, client) = with_rows().await;
    for query in [
        "SELECT count(*) FROM (SELECT m.n FROM m JOIN (VALUES ('h19')) AS s(host) USING (host) \
         WHERE m.v > 1 LIMIT 10) AS some",
        "SELECT count(*) FROM (SELECT n FROM m WHERE v > 1 AND n NOT IN (SELECT n FROM m WHERE n < 29990) LIMIT 10) AS some",
    ] {
        assert_eq!(lines(&client, query).await, [["10"]], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_rows_are_fetched_without_stages() {
    let (_nodes, client) = with_rows().await;
    let few = "CREATE TABLE few (v DOUBLE, TAGS(host));
               INSERT INTO few (time, host, v) SELECT time, host, v FROM m WHERE n < 100";
    client.batch_execute(few).await.unwrap();
    let query = "SELECT host, avg(v) FROM few GROUP BY host";
    assert!(!plan(&client, query).await.contains("NetworkCoalesceExec"));
    client.batch_execute("SET min_remote_stage_rows = 1").await.unwrap();
    assert!(plan(&client, query).await.contains("NetworkCoalesceExec"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_a_stage_is_told_as_it_is() {
    let (_nodes, client) = with_rows().await;
    for (query, code) in [
        ("SELECT count(*) FROM m WHERE 1 / (n - 4711) > 0", "22012"),
        ("SELECT count(*) FROM m WHERE n * 9223372036854775807 > 0", "22003"),
    ] {
        let error = client.simple_query(query).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{query}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_or_refused_where_a_node_with_rows_is_lost() {
    let (mut nodes, client) = with_rows().await;
    let query = "SELECT host, count(*) FROM m GROUP BY host ORDER BY host";
    let whole = lines(&client, query).await;
    nodes.kill(2);
    let error = client.simple_query(query).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("57P03"), "{error:?}");
    nodes.restart(2);
    assert_eq!(lines(&client, query).await, whole);
}
