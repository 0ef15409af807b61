//! What Tab offers: commands, keywords, and the names that the server knows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::{Answer, Client};
use crate::help::STATEMENTS;

/// The most names of columns and tables that are asked for.
const NAMES_MAX: usize = 10_000;

/// Words of statements beyond those they begin with.
const KEYWORDS: &str = "\
    ALL ANALYZE AND AS ASC ASOF BETWEEN BY CASE CAST CODEC COLUMN CROSS CSV CURSOR DATABASE \
    DESC DISTINCT DOUBLE ELSE END EXCEPT EXISTS FIELD FROM FULL GROUP HAVING HEADER ILIKE IN \
    INNER INTERSECT INTERVAL INTO IS JOIN LATEST LEFT LIKE LIMIT MATCH_CONDITION NOT NULL \
    OFFSET ON OR ORDER OUTER OVER PARTITION PRECISION REPLICA RIGHT ROLE SCHEMA SHARD STDIN \
    STDOUT STRING TABLE TABLES TAGS TENANT THEN TTL UNION USER VIEW VNODE_DURATION WHEN \
    WHERE WINDOW WITH";

const COMMANDS: &str = "\
    \\? \\c \\change_tenant \\connect \\copy \\d \\df \\dn \\dt \\du \\dv \\format \\h \
    \\help \\i \\l \\q \\quit \\timing \\x";

/// Words behind which a table is named.
const BEFORE_TABLES: [&str; 8] =
    ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "TRUNCATE", "DESCRIBE", "VIEW"];
/// Words behind which a database is named.
const BEFORE_DATABASES: [&str; 4] = ["DATABASE", "SCHEMA", "USE", "ON"];

/// The names that the server knows, as they were when it was asked last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    databases: BTreeSet<String>,
    tables: BTreeSet<String>,
    columns: BTreeSet<String>,
    functions: BTreeSet<String>,
}

impl Names {
    /// Asks the server anew. What cannot be asked is left out: it is only an offer.
    pub(crate) async fn refresh(&self, client: &Client) {
        let databases = ask(client, "SHOW DATABASES").await;
        let tables = ask(client, "SHOW TABLES").await;
        let columns = format!(
            "SELECT DISTINCT column_name FROM information_schema.columns LIMIT {NAMES_MAX}"
        );
        let columns = ask(client, &columns).await;
        let functions = "SELECT DISTINCT routine_name FROM information_schema.routines";
        let functions = ask(client, functions).await;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { databases, tables, columns, functions };
    }

    /// Returns where the word before the cursor begins, and what it may become.
    pub(crate) fn offer(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = line.get(..cursor).unwrap_or(line);
        let begin = before
            .rfind(|c: char| !(c.is_alphanumeric() || "_.\\?".contains(c)))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = &before[begin..];
        if word.starts_with('\\') {
            let offered = COMMANDS.split(' ').filter(|one| one.starts_with(word));
            return (begin, offered.map(|one| (*one).to_owned()).collect());
        }
        let last = before[..begin].split_whitespace().next_back().unwrap_or_default();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let upper = last.to_uppercase();
        let names: Vec<&BTreeSet<String>> = match last {
            "\\d" | "\\copy" => vec![&known.tables],
            "\\c" | "\\connect" => vec![&known.databases],
            _ if BEFORE_TABLES.contains(&upper.as_str()) => vec![&known.tables, &known.databases],
            _ if BEFORE_DATABASES.contains(&upper.as_str()) => vec![&known.databases],
            _ => vec![&known.columns, &known.tables, &known.functions],
        };
        let names = names.into_iter().flatten().filter(|name| name.starts_with(word));
        let mut offered: BTreeSet<String> = names.cloned().collect();
        if !word.is_empty() && !word.contains('.') && !line.starts_with('\\') {
            let typed = word.to_uppercase();
            let first = STATEMENTS.iter().filter_map(|(name, _)| name.split(' ').next());
            let keywords = KEYWORDS.split(' ').chain(first);
            // In the letters that are typed.
            let is_lower = word.chars().all(char::is_lowercase);
            let cased = |one: &str| if is_lower { one.to_lowercase() } else { one.to_owned() };
            offered.extend(keywords.filter(|one| one.starts_with(&typed)).map(cased));
        }
        (begin, offered.into_iter().collect())
    }
}

/// Returns the first column of an answer.
async fn ask(client: &Client, query: &str) -> BTreeSet<String> {
    match client.run(query).await {
        Ok(Answer::Rows(_, rows)) => {
            rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
        }
        Ok(Answer::Done(_)) | Err(_) => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tab_offers_names_where_they_may_stand_and_keywords_as_they_are_typed() {
        let names = Names::default();
        {
            let mut known = names.0.lock().unwrap();
            known.tables.extend(["air".to_owned(), "airport".to_owned()]);
            known.databases.insert("weather".to_owned());
            known.columns.extend(["alt".to_owned(), "station".to_owned()]);
        }
        let offer = |line: &str| names.offer(line, line.len());
        assert_eq!(offer("SELECT * FROM ai"), (14, vec!["air".to_owned(), "airport".to_owned()]));
        assert_eq!(offer("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(offer("SELECT sta"), (7, vec!["station".to_owned()]));
        assert_eq!(offer("SELECT 1 WHER").1, ["WHERE"]);
        assert_eq!(offer("\\c w"), (3, vec!["weather".to_owned()]));
        assert_eq!(offer("\\ti"), (0, vec!["\\timing".to_owned()]));
        assert_eq!(offer("SELECT 'ü', sta").1, ["station"]);
        assert!(offer("SELECT * FROM ").1.contains(&"air".to_owned()));
    }
}
