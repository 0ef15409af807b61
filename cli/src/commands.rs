//! Splits what is typed into statements and backslash commands, and runs them.

use clap::ValueEnum;
use tokio::time::Instant;

use crate::client::{Answer, Client, until_interrupted};
use crate::help;
use crate::render::{self, Format};

const HELP: &str = "\
\\?                 this help            \\h [STATEMENT]  how statements are written
\\l \\dn             databases            \\dt \\d          tables
\\d NAME            columns of a table   \\dv             views
\\df [PATTERN]      functions            \\du             users
\\c NAME            another database     \\q              quit
\\x                 records on and off   \\timing         times on and off
\\format NAME       table, csv, tsv, json or nd-json
\\i FILE            run a file
\\copy TABLE FROM 'FILE' [WITH (...)]    rows of a file into a table
\\copy TABLE TO 'FILE' [WITH (...)]      rows of a table into a file
Statements end with a semicolon; Tab completes.";

/// What a session of the client remembers.
pub(crate) struct Shell {
    pub(crate) client: Client,
    format: Format,
    expanded: bool,
    timing: bool,
    pub(crate) quit: bool,
    /// What the server knows may have other names than before.
    pub(crate) names_changed: bool,
}

impl Shell {
    pub(crate) fn new(client: Client, format: Format) -> Self {
        Self { client, format, expanded: false, timing: false, quit: false, names_changed: true }
    }

    /// Runs all of a text, up to the first failure. Returns whether all went well.
    pub(crate) async fn run_text(&mut self, text: &str) -> bool {
        let mut rest = text;
        loop {
            rest = rest.trim_start();
            if rest.is_empty() || self.quit {
                return true;
            }
            let piece = if rest.starts_with('\\') {
                let end = rest.find('\n').unwrap_or(rest.len());
                let (line, tail) = rest.split_at(end);
                rest = tail;
                line
            } else {
                let end = statement_end(rest).unwrap_or(rest.len());
                let (statement, tail) = rest.split_at(end);
                rest = tail;
                statement
            };
            if !self.run(piece).await {
                return false;
            }
        }
    }

    /// Runs one statement or backslash command.
    pub(crate) async fn run(&mut self, piece: &str) -> bool {
        let piece = piece.trim();
        if piece.trim_end_matches(';').is_empty() {
            return true;
        }
        let start = Instant::now();
        let outcome = match piece.strip_prefix('\\') {
            Some(command) => Box::pin(self.command(command)).await,
            None => self.statement(piece).await,
        };
        for notice in self.client.notices() {
            eprintln!("{notice}");
        }
        if self.timing && !piece.starts_with('\\') {
            println!("Time: {:.3} ms", start.elapsed().as_secs_f64() * 1e3);
        }
        match outcome {
            Ok(()) => true,
            Err(message) => {
                eprintln!("{message}");
                false
            }
        }
    }

    async fn statement(&mut self, statement: &str) -> Result<(), String> {
        let upper = statement.trim_start().to_ascii_uppercase();
        let token = self.client.cancel_token();
        let defines = ["CREATE", "ALTER", "DROP", "RECOVER", "USE", "SET", "RESET"];
        self.names_changed |= defines.iter().any(|word| upper.starts_with(word));
        if upper.starts_with("COPY") && upper.contains("STDOUT") {
            let copied = self.client.copy_out(statement.trim_end_matches(';'), None);
            return until_interrupted(token, copied).await.map(|_| ());
        }
        if upper.starts_with("COPY") && upper.contains("STDIN") {
            return Err("use \\copy TABLE FROM 'FILE' instead".to_owned());
        }
        let is_copy = upper.split_whitespace().take(2).eq(["COPY", "INTO"]);
        let answer = async {
            if is_copy {
                return self.client.run_copy(statement).await;
            }
            self.client.run(statement).await
        };
        match until_interrupted(token, answer).await? {
            Answer::Rows(columns, rows) => {
                render::rows(&columns, &rows, self.format, self.expanded)
            }
            Answer::Done(rows) if self.format == Format::Table => println!("OK, {rows} rows"),
            Answer::Done(_) => {}
        }
        Ok(())
    }

    async fn command(&mut self, command: &str) -> Result<(), String> {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim().trim_end_matches(';');
        match (name, rest) {
            ("q" | "quit", _) => self.quit = true,
            ("?", _) => println!("{HELP}"),
            ("h" | "help", statement) => println!("{}", help::of(statement)),
            ("format", name) => {
                let found = Format::from_str(name, true);
                self.format = found.map_err(|_| "usage: \\format table|csv|tsv|json|nd-json")?;
            }
            ("x", _) => {
                self.expanded = !self.expanded;
                println!("Expanded display is {}.", if self.expanded { "on" } else { "off" });
            }
            ("timing", _) => {
                self.timing = !self.timing;
                println!("Timing is {}.", if self.timing { "on" } else { "off" });
            }
            ("l" | "dn", _) => self.statement("SHOW DATABASES").await?,
            ("dt", _) | ("d", "") => self.statement("SHOW TABLES").await?,
            ("du", _) => self.statement("SHOW USERS").await?,
            ("dv", _) => {
                let views = "SELECT table_schema, table_name FROM information_schema.tables \
                             WHERE table_type = 'VIEW' ORDER BY 1, 2";
                self.statement(views).await?;
            }
            ("df", pattern) => {
                let pattern = pattern.replace('\'', "''").replace('*', "%");
                let pattern = if pattern.is_empty() { "%".to_owned() } else { pattern };
                let functions = format!(
                    "SELECT DISTINCT routine_name, function_type, description FROM \
                     information_schema.routines WHERE routine_name LIKE '{pattern}' ORDER BY 1"
                );
                self.statement(&functions).await?;
            }
            ("d", table) => self.statement(&format!("DESCRIBE TABLE {table}")).await?,
            ("c" | "connect", "") => println!("{} as {}", self.client.dbname, self.client.user()),
            ("change_tenant", tenant) => {
                self.client = self.client.reconnect(tenant).await?;
                self.names_changed = true;
            }
            ("c" | "connect", dbname) => {
                self.client = self.client.reconnect(dbname).await?;
                self.names_changed = true;
                println!("You are now connected to \"{dbname}\".");
            }
            ("i", path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
                if !self.run_text(&text).await {
                    return Err(format!("{path}: stopped"));
                }
            }
            ("copy", arguments) => self.copy(arguments).await?,
            (other, _) => return Err(format!("invalid command \\{other}; try \\?")),
        }
        Ok(())
    }

    /// Prints the statements that make some tenants, or all.
    pub(crate) async fn dump_ddl(&mut self, tenants: &[String]) -> Result<(), String> {
        let names: Vec<String> =
            tenants.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let of = if names.is_empty() {
            String::new()
        } else {
            format!(" FOR TENANT {}", names.join(", "))
        };
        if let Answer::Rows(_, rows) = self.client.run(&format!("SHOW DDL{of}")).await? {
            for line in rows.into_iter().flatten().flatten() {
                // What switches tenants is a command of this client's.
                println!("{line}{}", if line.starts_with('\\') { "" } else { ";" });
            }
        }
        Ok(())
    }

    async fn copy(&mut self, arguments: &str) -> Result<(), String> {
        let usage = || "usage: \\copy TABLE FROM|TO 'FILE' [WITH (...)]".to_owned();
        let upper = arguments.to_ascii_uppercase();
        let find = |word: &str| upper.find(&format!(" {word} '"));
        let (at, word) = match (find("FROM"), find("TO")) {
            (Some(at), _) => (at, "FROM"),
            (None, Some(at)) => (at, "TO"),
            (None, None) => return Err(usage()),
        };
        let quoted = &arguments[at + word.len() + 3..];
        let (path, options) = quoted.split_once('\'').ok_or_else(usage)?;
        let source = &arguments[..at];
        let token = self.client.cancel_token();
        let count = if word == "FROM" {
            let statement = format!("COPY {source} FROM STDIN {options}");
            let rows = until_interrupted(token, self.client.copy_in(&statement, path)).await?;
            format!("COPY {rows}")
        } else {
            let statement = format!("COPY {source} TO STDOUT {options}");
            let copied = self.client.copy_out(&statement, Some(path));
            let bytes = until_interrupted(token, copied).await?;
            format!("COPY, {bytes} bytes")
        };
        println!("{count}");
        Ok(())
    }
}

/// Returns where the first statement of a text ends, behind its semicolon.
pub(crate) fn statement_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let find =
        |from: usize, what: &str| text.get(from..)?.find(what).map(|at| from + at + what.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b';' => return Some(at + 1),
            b'\'' => find(at + 1, "'")?,
            b'"' => find(at + 1, "\"")?,
            b'-' if bytes.get(at + 1) == Some(&b'-') => find(at, "\n").unwrap_or(text.len()),
            b'/' if bytes.get(at + 1) == Some(&b'*') => find(at + 2, "*/")?,
            b'$' => match dollar_tag(&text[at..]) {
                Some(tag) => find(at + tag.len(), tag)?,
                None => at + 1,
            },
            _ => at + 1,
        };
    }
    None
}

/// Returns the opening of a dollar-quoted string, such as `$$` or `$tag$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    tag[1..end - 1].chars().all(|c| c.is_alphanumeric() || c == '_').then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_that_are_not_quoted() {
        let cases = [
            ("SELECT 1; SELECT 2;", Some(9)),
            ("SELECT ';' ;x", Some(12)),
            ("SELECT \";\" -- ;\n;", Some(17)),
            ("/* ; */ SELECT $$;$$;", Some(21)),
            ("SELECT $1;", Some(10)),
            ("SELECT 'open", None),
        ];
        for (text, end) in cases {
            assert_eq!(statement_end(text), end, "{text}");
        }
    }
}
