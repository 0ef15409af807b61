//! What a query does not ask for is not read.

use tests::Server;
use tokio_postgres::Client;

use crate::nodes::lines;
use crate::writers::connect;

/// Returns the line of EXPLAIN ANALYZE that tells of the scan.
async fn scan_of(client: &Client, query: &str) -> String {
    let plan = lines(client, &format!("EXPLAIN ANALYZE {query}")).await[0][1].clone();
    let scan = plan.lines().find(|line| line.contains("TskvScanExec"));
    scan.expect("a table is read").to_owned()
}

/// A table of 20 hosts in one file of several row groups; `v` grows with time.
async fn with_rows(server: &Server) -> Client {
    let client = connect(server.port).await.unwrap();
    let setup = "CREATE DATABASE d WITH SHARD 1; SET search_path = d;
                 CREATE TABLE m (v DOUBLE, n BIGINT, TAGS(host));
                 INSERT INTO m (time, host, v, n)
                 SELECT to_timestamp(i), 'h' || i % 20, i * 0.5, i FROM generate_series(1, 200000) AS g(i);
                 COMPACT DATABASE d;";
    client.batch_execute(setup).await.unwrap();
    client
}

#[tokio::test]
async fn row_groups_whose_values_are_all_ruled_out_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = with_rows(&server).await;
    let none = scan_of(&client, "SELECT * FROM m WHERE v > 100000.5").await;
    assert!(none.contains("values=[v > 100000.5]"), "{none}");
    assert!(none.contains("row_groups_read=0"), "{none}");
    let all = scan_of(&client, "SELECT * FROM m WHERE v > 99999.5").await;
    assert!(!all.contains("row_groups_read=0"), "{all}");
    let found = lines(&client, "SELECT host, n FROM m WHERE v > 99999 ORDER BY n").await;
    assert_eq!(found, [["h19", "199999"], ["h0", "200000"]]);
    // A row that is written anew is merged, wherever its old values are.
    client
        .batch_execute("INSERT INTO m (time, host, v) VALUES (to_timestamp(1), 'h1', 1e9)")
        .await
        .unwrap();
    let found = lines(&client, "SELECT host, v, n FROM m WHERE v > 100000").await;
    assert_eq!(found, [["h1", "1000000000", "1"]]);
}

#[tokio::test]
async fn two_values_of_a_tag_are_two_series() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = with_rows(&server).await;
    for filter in ["host IN ('h1', 'h2')", "host = 'h1' OR host = 'h2'"] {
        let scan = scan_of(&client, &format!("SELECT max(n) FROM m WHERE {filter}")).await;
        assert!(scan.contains("series=2"), "{scan}");
    }
}

#[tokio::test]
async fn groups_that_lie_together_are_aggregated_without_a_table_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = with_rows(&server).await;
    let query = "SELECT date_bin('1 hour', time) AS w, host, count(*) AS c, sum(n) AS s FROM m \
                 WHERE v > 10 GROUP BY w, host";
    let plan = lines(&client, &format!("EXPLAIN {query}")).await[1][1].clone();
    assert!(plan.contains("StretchAggregateExec"), "{plan}");
    let plain = "SELECT date_bin('1 hour', time) AS w, host, sum(n) FROM m GROUP BY w, host";
    let plan = lines(&client, &format!("EXPLAIN {plain}")).await[1][1].clone();
    assert!(plan.contains("dictionaries=[host]"), "{plan}");
    let all = format!("SELECT count(*), sum(c), sum(s) FROM ({query}) AS groups");
    let (rows, sum) = (200_000 - 20, (21..=200_000_u64).sum::<u64>());
    let expected = [[(56 * 20).to_string(), rows.to_string(), sum.to_string()]];
    assert_eq!(lines(&client, &all).await, expected);
}
