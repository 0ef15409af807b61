//! `\h`: statements and how they are written.

/// Statements by their first words, sorted, and their syntax.
pub(crate) const STATEMENTS: [(&str, &str); 41] = [
    (
        "ALTER DATABASE",
        "ALTER DATABASE name SET TTL | SHARD | VNODE_DURATION | REPLICA | STRICT_WRITE | MAX_MEMCACHE_SIZE value",
    ),
    ("ALTER NODE", "ALTER NODE id CORDON | UNCORDON | DRAIN | ADDRESS 'host:port'"),
    (
        "ALTER TABLE",
        "ALTER TABLE t ADD [TAG | FIELD] c type [CODEC(x)] | DROP c | RENAME COLUMN a TO b | RENAME TO u | ALTER c SET CODEC(x)",
    ),
    (
        "ALTER TENANT",
        "ALTER TENANT t SET option = value, … | UNSET option | ADD USER u AS role | REMOVE USER u",
    ),
    ("ALTER USER", "ALTER USER u SET option = value | RENAME TO v | PASSWORD '…'"),
    ("BEGIN", "BEGIN; …; COMMIT | ROLLBACK [TO SAVEPOINT s]   (each statement commits by itself)"),
    ("CHECKSUM GROUP", "CHECKSUM GROUP replica_set"),
    ("CLOSE", "CLOSE cursor | ALL"),
    ("COMPACT", "COMPACT DATABASE name | VNODE id, …"),
    (
        "COPY",
        "COPY t [(c, …)] FROM STDIN | COPY t | (query) TO STDOUT [WITH (FORMAT text | csv | binary, HEADER, DELIMITER, NULL, QUOTE, ESCAPE)]",
    ),
    (
        "COPY INTO",
        "COPY INTO t FROM 'location' | COPY INTO 'location' FROM t | (query) [CONNECTION = (…)] [FILE_FORMAT = (TYPE = 'PARQUET' | 'CSV' | 'JSON' …)]",
    ),
    ("COPY VNODE", "COPY VNODE v TO NODE n"),
    (
        "CREATE DATABASE",
        "CREATE DATABASE [IF NOT EXISTS] name [WITH TTL '30d' SHARD 4 VNODE_DURATION '1d' REPLICA 3 PRECISION 'ns']",
    ),
    (
        "CREATE EXTERNAL TABLE",
        "CREATE EXTERNAL TABLE [IF NOT EXISTS] t [(c type, …)] STORED AS PARQUET | CSV | NDJSON | AVRO LOCATION 'path' [PARTITIONED BY (c, …)]",
    ),
    ("CREATE ROLE", "CREATE ROLE [IF NOT EXISTS] r [INHERIT owner | member]"),
    (
        "CREATE TABLE",
        "CREATE TABLE [IF NOT EXISTS] t (c type [CODEC(x)], …, TAGS(tag, …)) | CREATE TABLE t [TAGS (c, …)] AS query",
    ),
    ("CREATE TEMP TABLE", "CREATE TEMP TABLE t (c type [NOT NULL] [PRIMARY KEY], …) | AS query"),
    (
        "CREATE TENANT",
        "CREATE TENANT [IF NOT EXISTS] t [WITH comment = '…', drop_after = '7d', object_config …, coord_queries …]",
    ),
    (
        "CREATE USER",
        "CREATE USER [IF NOT EXISTS] u [WITH password = '…', granted_admin = false, must_change_password = false, comment = '…']",
    ),
    ("CREATE VIEW", "CREATE [OR REPLACE] VIEW v [(c, …)] AS query"),
    ("DECLARE", "DECLARE name CURSOR [WITH HOLD] FOR query"),
    ("DELETE", "DELETE FROM t [WHERE condition]"),
    ("DESCRIBE", "DESCRIBE TABLE t | DATABASE d"),
    ("DROP", "DROP TABLE | VIEW | DATABASE | TENANT | USER | ROLE [IF EXISTS] name [AFTER '7d']"),
    ("EXPLAIN", "EXPLAIN [ANALYZE] [VERBOSE] query | EXPLAIN (FORMAT JSON) query"),
    ("FETCH", "FETCH [n | ALL] FROM cursor"),
    ("GRANT", "GRANT READ | WRITE | ALL ON DATABASE d | TABLE d.t TO role"),
    ("INSERT", "INSERT INTO t [(c, …)] VALUES (…), … | query"),
    ("KILL", "KILL [QUERY] id"),
    ("MOVE VNODE", "MOVE VNODE v TO NODE n"),
    (
        "PREPARE",
        "PREPARE name [(type, …)] AS statement; EXECUTE name (value, …); DEALLOCATE name | ALL",
    ),
    ("RECOVER", "RECOVER DATABASE | TENANT name"),
    ("REMOVE NODE", "REMOVE NODE id"),
    ("REPLICA", "REPLICA ADD | REMOVE | PROMOTE REPLICA_ID r NODE_ID n"),
    ("REVOKE", "REVOKE READ | WRITE | ALL ON DATABASE d | TABLE d.t FROM role"),
    (
        "SELECT",
        "[WITH …] SELECT … FROM t [JOIN | ASOF JOIN …] [WHERE …] [GROUP BY …] [HAVING …] [ORDER BY …] [LIMIT n] [LATEST ON time PARTITION BY tag]",
    ),
    ("SET", "SET name = value; SHOW name; RESET name"),
    (
        "SHOW",
        "SHOW DATABASES | TABLES | TENANTS | USERS | QUERIES | NODES | REPLICAS | VNODES | COMPACTIONS | SERIES … | TAG VALUES … | TAG KEYS | FIELD KEYS | DDL | name",
    ),
    ("TRUNCATE", "TRUNCATE t"),
    ("TRUNCATE SHARDS", "TRUNCATE SHARDS [OF DATABASE name]"),
    ("UPDATE", "UPDATE t SET c = value, … [WHERE condition]"),
];

/// Returns what `\h` prints: all statements there are, or how some are written.
pub(crate) fn of(wanted: &str) -> String {
    let wanted = wanted.trim().to_uppercase();
    if wanted.is_empty() {
        let names: Vec<&str> = STATEMENTS.iter().map(|(name, _)| *name).collect();
        return format!("\\h STATEMENT tells how it is written:\n{}", names.join(", "));
    }
    let found: Vec<&str> = STATEMENTS
        .iter()
        .filter(|(name, _)| name.starts_with(&wanted) || wanted.starts_with(&format!("{name} ")))
        .map(|(_, syntax)| *syntax)
        .collect();
    if found.is_empty() {
        return format!("no statement begins with {wanted}; \\h lists them");
    }
    found.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_found_by_first_words() {
        assert!(STATEMENTS.is_sorted_by_key(|(name, _)| *name));
        assert!(of("create tab").starts_with("CREATE TABLE"));
        assert_eq!(of("copy").lines().count(), 3);
        assert!(of("delete from x").starts_with("DELETE"));
        assert!(of("").contains("TRUNCATE"));
        assert!(of("nothing").starts_with("no statement"));
    }
}
