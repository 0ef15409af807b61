//! Reads statements: what is ours by its first words, the rest by DataFusion's parser.

mod definition;
mod external;
mod files;
mod kept;
mod nodes;
mod roles;
mod series;
mod temporary;
mod tenants;

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

use super::dialect::DIALECT;
use super::{Access, Compacted, Savepoint, Show, Statement, latest, limits, select_all};
use crate::catalog::catalog_replacement;
use crate::error::{Error, Result};
use crate::settings::{READ_ONLY, READ_ONLY_DEFAULT};

/// The tag of what drops the session's tables.
pub(crate) const DISCARD_TEMP: &str = "DISCARD TEMP";
/// Nesting the parser follows.
pub(crate) const RECURSION_MAX: usize = 200;

/// Reads all statements of a text.
///
/// # Errors
/// 42601 with its position, 54000 and 54001 for what is too large.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    let tokens = tokens(text)?;
    let parser = DFParserBuilder::new(tokens).with_dialect(&DIALECT);
    let mut parser = parser.with_recursion_limit(RECURSION_MAX).build().map_err(Error::from)?;
    let mut statements = Vec::new();
    loop {
        while parser.parser.consume_token(&Token::SemiColon) {}
        if parser.parser.peek_token_ref().token == Token::EOF {
            break;
        }
        let statement = statement(&mut parser);
        statements.push(statement.map_err(|failure| failure.into_error(text))?);
        let next = parser.parser.peek_token();
        if !matches!(next.token, Token::SemiColon | Token::EOF) {
            let error = parser.parser.expected::<()>("end of statement", next);
            return Err(Failure::from(error).into_error(text));
        }
    }
    if let [Statement::Query(query)] = statements.as_mut_slice()
        && let Some(replaced) = catalog_replacement(text)
    {
        **query = DfStatement::Statement(Box::new(replaced));
    }
    Ok(statements)
}

/// Reads a text that must hold at most one statement.
pub(crate) fn parse_one(text: &str) -> Result<Option<Statement>> {
    let mut statements = parse(text)?;
    if statements.len() > 1 {
        let message = "cannot insert multiple commands into a prepared statement";
        return Err(Error::syntax(message));
    }
    Ok(statements.pop())
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    if text.len() > limits::INSERT_BYTES_MAX {
        return Err(Error::new("54000", "statement is longer than 64 MiB"));
    }
    let first = text.trim_start().get(..6).unwrap_or_default();
    if text.len() > limits::SQL_BYTES_MAX && !first.eq_ignore_ascii_case("insert") {
        return Err(Error::new("54000", "statement is longer than 1 MiB"));
    }
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| Error::parser(&ParserError::from(error), text))?;
    limits::check(&tokens)?;
    let mut tokens = names_alone(signs_apart(tokens));
    plan_format(&mut tokens);
    latest::rewrite(tokens)
}

/// Takes signs off the ends of operators: `a>-1` compares with -1. As in PostgreSQL an operator ends in a sign
/// only where it has one of `~!@#%^&|`?` (Lexical structure, 4.1.3).
fn signs_apart(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut apart = Vec::with_capacity(tokens.len());
    for token in tokens {
        let Token::CustomBinaryOperator(operator) = &token.token else {
            apart.push(token);
            continue;
        };
        let bare = operator.trim_end_matches(['+', '-']);
        let known = match bare {
            "<" => Some(Token::Lt),
            ">" => Some(Token::Gt),
            "<=" => Some(Token::LtEq),
            ">=" => Some(Token::GtEq),
            "<>" => Some(Token::Neq),
            "=" => Some(Token::Eq),
            "*" => Some(Token::Mul),
            "/" => Some(Token::Div),
            _ => None,
        };
        let Some(known) = known else {
            apart.push(token);
            continue;
        };
        let signs = operator[bare.len()..].chars().map(|sign| match sign {
            '+' => Token::Plus,
            _ => Token::Minus,
        });
        let all = std::iter::once(known).chain(signs);
        apart.extend(all.map(|sign| TokenWithSpan { token: sign, span: token.span }));
    }
    apart
}

/// Gives the format of `EXPLAIN (FORMAT JSON)` the planner's name for it.
fn plan_format(tokens: &mut [TokenWithSpan]) {
    let is_statement = |token: &TokenWithSpan| token.token != Token::SemiColon;
    for statement in tokens.chunk_by_mut(|one, _| is_statement(one)) {
        let words = statement.iter_mut().filter_map(|token| match &mut token.token {
            Token::Word(word) => Some(word),
            _ => None,
        });
        let mut words = words.peekable();
        if !words.next().is_some_and(|word| word.value.eq_ignore_ascii_case("explain")) {
            continue;
        }
        let begins = ["SELECT", "WITH", "VALUES", "TABLE"];
        let is_option =
            |word: &&mut Word| !begins.contains(&word.value.to_ascii_uppercase().as_str());
        while let Some(word) = words.next_if(is_option) {
            if word.value.eq_ignore_ascii_case("format")
                && let Some(format) = words.next()
            {
                match format.value.to_ascii_uppercase().as_str() {
                    "JSON" => "pgjson".clone_into(&mut format.value),
                    "TEXT" => "indent".clone_into(&mut format.value),
                    _ => {}
                }
                break;
            }
        }
    }
}

/// Takes the parentheses away behind names that PostgreSQL writes without any: `current_user()`.
fn names_alone(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    const NAMES: [&str; 3] = ["current_user", "session_user", "current_catalog"];
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        kept.push(token);
        if let [.., name, open, close] = kept.as_slice()
            && let Token::Word(word) = &name.token
            && open.token == Token::LParen
            && close.token == Token::RParen
            && NAMES.iter().any(|name| word.value.eq_ignore_ascii_case(name))
        {
            kept.truncate(kept.len() - 2);
        }
    }
    kept
}

/// A failure of the parser, or an error of our own that needs no position.
enum Failure {
    Parser(ParserError),
    Own(Error),
}

type Parsed<T> = std::result::Result<T, Failure>;

impl Failure {
    fn into_error(self, text: &str) -> Error {
        match self {
            Self::Parser(error) => Error::parser(&error, text),
            Self::Own(error) => error,
        }
    }
}

impl From<ParserError> for Failure {
    fn from(error: ParserError) -> Self {
        Self::Parser(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl<T> From<std::result::Result<T, ParserError>> for Failure {
    fn from(result: std::result::Result<T, ParserError>) -> Self {
        match result {
            Ok(_) => Self::Own(Error::internal("a parser's error was expected")),
            Err(error) => Self::Parser(error),
        }
    }
}

impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        match error {
            datafusion::error::DataFusionError::SQL(error, _) => Self::Parser(*error),
            other => Self::Own(other.into()),
        }
    }
}

/// Returns the word at `n`, in upper case, if a word stands there without quotes.
fn word(parser: &Parser<'_>, n: usize) -> String {
    match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
        _ => String::new(),
    }
}

/// Takes the next word if it is `wanted`.
fn take(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let found = word(parser, 0) == wanted;
    if found {
        parser.advance_token();
    }
    found
}

/// Passes over a token that may be left out.
fn skip(parser: &mut Parser<'_>, token: &Token) {
    if parser.peek_token_ref().token == *token {
        parser.advance_token();
    }
}

fn expect(parser: &mut Parser<'_>, wanted: &str) -> Parsed<()> {
    if take(parser, wanted) {
        return Ok(());
    }
    let found = parser.peek_token();
    Err(parser.expected::<()>(wanted, found).into())
}

fn take_all(parser: &mut Parser<'_>, wanted: &[&str]) -> bool {
    let found = wanted.iter().enumerate().all(|(n, wanted)| word(parser, n) == *wanted);
    if found {
        wanted.iter().for_each(|_| parser.advance_token());
    }
    found
}

/// Reads a name; without quotes it folds to lower case.
fn name(parser: &mut Parser<'_>) -> Parsed<String> {
    Ok(fold(&parser.parse_identifier()?))
}

/// Returns a name as it is after folding: lower case, unless it stands in quotes.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Reads a whole number above zero.
fn count(p: &mut Parser<'_>, option: &str) -> Parsed<u32> {
    let found = p.next_token();
    let text = match &found.token {
        Token::Number(text, _) | Token::SingleQuotedString(text) => text.clone(),
        _ => return Err(p.expected::<()>("a whole number", found).into()),
    };
    let number = text.parse::<u32>().ok().filter(|number| *number > 0);
    let message = || format!("{option} must be a whole number above zero, not {text}");
    number.ok_or_else(|| Error::new("22023", message()).into())
}

fn object_name(parser: &mut Parser<'_>) -> Parsed<Vec<String>> {
    let mut parts = vec![name(parser)?];
    while parser.consume_token(&Token::Period) {
        parts.push(name(parser)?);
    }
    Ok(parts)
}

fn statement(parser: &mut DFParser<'_>) -> Parsed<Statement> {
    let p = &mut parser.parser;
    let (first, second) = (word(p, 0), word(p, 1));
    match (first.as_str(), second.as_str()) {
        ("CREATE" | "ALTER" | "DROP", "PLACEMENT" | "PLACEMENT_POLICY") => nodes::policy(p),
        ("CREATE", _) => definition::create(p),
        ("ALTER", "NODE") => nodes::alter(p),
        ("REMOVE", _) => nodes::remove(p),
        ("MOVE" | "COPY" | "DROP", "VNODE") => nodes::vnode(p),
        ("COPY", "INTO") => files::copy_into(p),
        ("REPLICA", _) => nodes::replica(p),
        ("CHECKSUM", _) => nodes::checksum(p),
        ("TRUNCATE", "SHARDS") => nodes::truncate_shards(p),
        ("GRANT" | "REVOKE", _) => roles::grant(p),
        ("ALTER", _) => definition::alter(p),
        ("DROP", _) => definition::drop_object(p),
        ("RECOVER", _) => definition::recover(p),
        ("SHOW", _) => show(p),
        ("DESCRIBE" | "DESC", _) => describe(p),
        ("USE", _) => {
            p.advance_token();
            Ok(Statement::Set("search_path".to_owned(), Some(name(p)?)))
        }
        ("INSERT", _) => insert(p),
        ("COMPACT", _) => compact(p),
        ("KILL", "JOB") => nodes::kill_job(p),
        ("KILL", _) => {
            p.advance_token();
            take(p, "QUERY");
            Ok(Statement::Kill(u64::from(count(p, "KILL")?)))
        }
        ("EXECUTE", _) => kept::execute(p),
        ("DECLARE", _) => kept::declare(p),
        ("FETCH", _) => kept::fetch(p),
        ("CLOSE", _) => {
            p.advance_token();
            Ok(Statement::Close(kept::name_or_all(p)?))
        }
        ("DEALLOCATE", _) => {
            p.advance_token();
            take(p, "PREPARE");
            Ok(Statement::Deallocate(kept::name_or_all(p)?))
        }
        ("RESET", "ALL") => {
            p.advance_token();
            p.advance_token();
            Ok(Statement::ResetAll)
        }
        ("RESET", "TIME") => {
            p.advance_token();
            p.advance_token();
            expect(p, "ZONE")?;
            Ok(Statement::Set("timezone".to_owned(), None))
        }
        ("RESET", _) => {
            p.advance_token();
            Ok(Statement::Set(name(p)?, None))
        }
        ("UNLISTEN" | "LISTEN", _) => {
            p.advance_token();
            p.advance_token();
            Ok(Statement::Discard("UNLISTEN"))
        }
        ("TABLE", _) => {
            p.advance_token();
            let table = object_name(p)?;
            select_all(&table).ok_or_else(|| Error::syntax("a table is expected").into())
        }
        ("SELECT" | "VALUES" | "WITH" | "EXPLAIN" | "", _) => query(parser.parse_statement()?),
        _ => standard(p.parse_statement()?),
    }
}

fn query(statement: DfStatement) -> Parsed<Statement> {
    let inner = match &statement {
        DfStatement::Explain(explain) => explain.statement.as_ref(),
        other => other,
    };
    match inner {
        DfStatement::Statement(sql) if matches!(**sql, ast::Statement::Query(_)) => {
            Ok(Statement::Query(Box::new(statement)))
        }
        _ => Err(Error::unsupported("EXPLAIN of a statement that is no query").into()),
    }
}

fn standard(statement: ast::Statement) -> Parsed<Statement> {
    use ast::Statement as Sql;
    Ok(match statement {
        Sql::Query(_) => Statement::Query(Box::new(DfStatement::Statement(Box::new(statement)))),
        Sql::Insert(insert) => Statement::Insert(Box::new(insert)),
        Sql::Delete(delete) => Statement::Delete(Box::new(delete)),
        Sql::Update(update) => Statement::Update(Box::new(update)),
        Sql::Truncate(truncate) => Statement::Truncate(Box::new(truncate)),
        Sql::Prepare { name, data_types, statement } => {
            Statement::Prepare(fold(&name), data_types, Box::new(kept::prepared(*statement)?))
        }
        Sql::Copy { .. } => Statement::Copy(Box::new(statement)),
        Sql::Set(set) => setting(set)?,
        Sql::StartTransaction { begin, modes, .. } => {
            let tag = if begin { "BEGIN" } else { "START TRANSACTION" };
            Statement::Begin(tag, access(&modes))
        }
        Sql::Commit { .. } => Statement::Commit,
        Sql::Rollback { savepoint: None, .. } => Statement::Rollback,
        Sql::Rollback { savepoint: Some(name), .. } => {
            Statement::Savepoint(Savepoint::BackTo(fold(&name)))
        }
        Sql::Savepoint { name } => Statement::Savepoint(Savepoint::Set(fold(&name))),
        Sql::ReleaseSavepoint { name } => Statement::Savepoint(Savepoint::Release(fold(&name))),
        Sql::Discard { object_type } => match object_type {
            ast::DiscardObject::ALL => Statement::DiscardAll,
            ast::DiscardObject::PLANS => Statement::Discard("DISCARD PLANS"),
            ast::DiscardObject::SEQUENCES => Statement::Discard("DISCARD SEQUENCES"),
            ast::DiscardObject::TEMP => Statement::Discard(DISCARD_TEMP),
        },
        other => {
            let text = other.to_string();
            let first = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return Err(Error::unsupported(first).into());
        }
    })
}

/// Reads `COMPACT DATABASE name` or `COMPACT VNODE id, ...`.
fn compact(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    if take(p, "DATABASE") || take(p, "SCHEMA") {
        return Ok(Statement::Compact(Compacted::Database(name(p)?)));
    }
    expect(p, "VNODE")?;
    let mut vnodes = Vec::new();
    loop {
        vnodes.push(u64::from(count(p, "VNODE")?));
        if !p.consume_token(&Token::Comma) {
            return Ok(Statement::Compact(Compacted::Vnodes(vnodes)));
        }
    }
}

/// Returns what the modes of a block say it may do.
fn access(modes: &[ast::TransactionMode]) -> Option<Access> {
    modes.iter().rev().find_map(|mode| match mode {
        ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadOnly) => {
            Some(Access::Read)
        }
        ast::TransactionMode::AccessMode(ast::TransactionAccessMode::ReadWrite) => {
            Some(Access::Write)
        }
        ast::TransactionMode::IsolationLevel(_) => None,
    })
}

fn setting(set: ast::Set) -> Parsed<Statement> {
    let text = |expression: &ast::Expr| match expression {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        ast::Expr::Identifier(ident) => fold(ident),
        other => other.to_string(),
    };
    let value = |text: String| (!text.eq_ignore_ascii_case("default")).then_some(text);
    Ok(match set {
        ast::Set::SingleAssignment { scope, variable, values, .. } => {
            let all: Vec<String> = values.iter().map(text).collect();
            let (name, value) = (variable.to_string().to_lowercase(), value(all.join(", ")));
            match scope {
                Some(ast::ContextModifier::Local) => Statement::SetLocal(name, value),
                _ if name == READ_ONLY => Statement::SetLocal(name, value),
                _ => Statement::Set(name, value),
            }
        }
        ast::Set::SetTimeZone { local, value: zone } => {
            let (name, value) = ("timezone".to_owned(), value(text(&zone)));
            if local { Statement::SetLocal(name, value) } else { Statement::Set(name, value) }
        }
        ast::Set::SetNames { charset_name, .. } => {
            Statement::Set("client_encoding".to_owned(), Some(charset_name.value))
        }
        ast::Set::SetTransaction { modes, session, .. } => match access(&modes) {
            Some(access) if session => {
                let value = access.read_only().to_owned();
                Statement::Set(READ_ONLY_DEFAULT.to_owned(), Some(value))
            }
            Some(access) => {
                Statement::SetLocal(READ_ONLY.to_owned(), Some(access.read_only().to_owned()))
            }
            None => Statement::Discard("SET"),
        },
        other => return Err(Error::unsupported(other).into()),
    })
}

fn insert(p: &mut Parser<'_>) -> Parsed<Statement> {
    let token = p.next_token();
    // `INTO` may be left out; the parser calls that another dialect's `INSERT TABLE`.
    match p.parse_insert(token)? {
        ast::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
        other => Err(Error::unsupported(other).into()),
    }
}

fn show(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    let shown = match what.as_str() {
        "DDL" => {
            let mut tenants = Vec::new();
            if take_all(p, &["FOR", "TENANT"]) {
                tenants.push(name(p)?);
                while p.consume_token(&Token::Comma) {
                    tenants.push(name(p)?);
                }
            }
            Show::Ddl(tenants)
        }
        "DATABASES" | "SCHEMAS" => Show::Databases,
        "TABLES" => {
            let on = ["ON", "FROM", "IN"].iter().any(|keyword| take(p, keyword));
            Show::Tables(if on { Some(name(p)?) } else { None })
        }
        "SERIES" => series::series(p)?,
        "TAG" | "FIELD" => series::keys(p, &what)?,
        "QUERIES" => Show::Queries,
        "TENANTS" => Show::Tenants,
        "COMPACTIONS" => Show::Compactions,
        "NODES" | "DATANODES" => Show::Nodes,
        "REPLICAS" => Show::Replicas,
        "VNODES" | "VNODE" => Show::Vnodes,
        "USERS" => Show::Users,
        "JOBS" => Show::Jobs,
        "PLACEMENT" if take(p, "POLICIES") || take(p, "POLICYS") => Show::Policies,
        "PLACEMENT_POLICIES" | "PLACEMENT_POLICYS" => Show::Policies,
        "ALL" => Show::Settings,
        "TIME" if take(p, "ZONE") => Show::Setting("timezone".to_owned()),
        "TRANSACTION" if take_all(p, &["ISOLATION", "LEVEL"]) => {
            Show::Setting("transaction_isolation".to_owned())
        }
        "" => {
            p.prev_token();
            Show::Setting(name(p)?)
        }
        other => {
            let mut setting = other.to_lowercase();
            while p.consume_token(&Token::Period) {
                setting = format!("{setting}.{}", name(p)?);
            }
            Show::Setting(setting)
        }
    };
    Ok(Statement::Show(shown))
}

fn describe(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    if take(p, "DATABASE") || take(p, "SCHEMA") {
        return Ok(Statement::Show(Show::Database(name(p)?)));
    }
    take(p, "TABLE");
    Ok(Statement::Show(Show::Table(object_name(p)?)))
}

#[cfg(test)]
mod tests {
    use super::super::{AlterDatabaseOption, Definition, NewColumnKind};
    use super::*;

    fn one(text: &str) -> Statement {
        parse_one(text).unwrap().unwrap()
    }

    #[test]
    fn options_stand_with_blanks_or_commas_with_or_without_equals() {
        let texts = [
            "CREATE DATABASE d WITH TTL '30d' SHARD 4 VNODE_DURATION '1d' REPLICA 1 PRECISION 'ms'",
            "create schema D with ttl = '30d', shard = 4, vnode_duration = 1, replica 1, precision='ms';",
        ];
        for text in texts {
            let Statement::Definition(definition) = one(text) else { panic!("{text}") };
            let Definition::CreateDatabase { name, options, .. } = *definition else { panic!() };
            assert_eq!(name, "d");
            assert_eq!(options.len(), 5, "{text}");
            assert_eq!(options[1], AlterDatabaseOption::Shard(4));
        }
    }

    #[test]
    fn a_primary_key_makes_tags() {
        let text = "CREATE TABLE t (time timestamptz, a text, b int, PRIMARY KEY (time, a))";
        let Statement::Definition(definition) = one(text) else { panic!() };
        let Definition::CreateTable { columns, .. } = *definition else { panic!() };
        assert_eq!(columns[0].kind, NewColumnKind::Tag);
        assert_eq!(columns[1].kind, NewColumnKind::Field(model::ValueType::I64, true));
    }

    #[test]
    fn several_statements_and_empty_ones_are_split() {
        assert_eq!(parse(";; SELECT 1;\nSHOW TABLES; ;").unwrap().len(), 2);
        assert!(parse(" -- nothing\n").unwrap().is_empty());
        assert_eq!(parse("SELECT 1 SELECT 2").unwrap_err().sqlstate, "42601");
    }

    #[test]
    fn what_would_overflow_the_stack_is_refused() {
        let chain = format!("SELECT 1{}", "+1".repeat(5_000));
        let deep = format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000));
        let union = "SELECT 1".to_owned() + &" UNION ALL SELECT 1".repeat(5_000);
        let list = "SELECT 1 FROM (VALUES (1)) a".to_owned() + &", (VALUES (1)) b".repeat(5_000);
        for text in [chain, deep, union, list] {
            assert_eq!(parse(&text).unwrap_err().sqlstate, "54001");
        }
        assert_eq!(parse(&" ".repeat(2 << 20)).unwrap_err().sqlstate, "54000");
    }

    #[test]
    fn errors_say_where() {
        let error = parse("SELECT *\nFORM t").unwrap_err();
        assert_eq!(error.sqlstate, "42601");
        assert!(parse("CREATE DATABASE d WITH TLT '1d'").unwrap_err().hint.is_some());
        let error = parse("DROP TABLE 5").unwrap_err();
        assert_eq!(error.position, Some(12), "{error}");
    }

    #[test]
    fn keywords_that_are_not_ours_are_left_to_the_parser() {
        assert!(matches!(one("INSERT t (a) VALUES (1)"), Statement::Insert(_)));
        assert!(matches!(one("COPY t FROM STDIN"), Statement::Copy(_)));
        assert!(matches!(one("BEGIN"), Statement::Begin("BEGIN", None)));
        let set = one("SET TIME ZONE 'UTC'");
        assert!(
            matches!(set, Statement::Set(name, Some(value)) if name == "timezone" && value == "UTC")
        );
    }
}
