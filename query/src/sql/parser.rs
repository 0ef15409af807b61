//! Reads statements: what is ours by its first words, the rest by DataFusion's parser.

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use meta::Precision;
use model::time::{Span, parse_span};

use super::definitions::{
    AlterDatabaseOption, AlterTableAction, ColumnDefinition, Definition, NewColumnKind,
    TenantAction, UserAction, UserOptions,
};
use super::{Compacted, FetchCount, Show, Statement, limits};
use crate::catalog::catalog_replacement;
use crate::error::{Error, Result, nearest};
use crate::types::{ColumnType, column_type};

const DIALECT: PostgreSqlDialect = PostgreSqlDialect {};
/// Nesting the parser follows.
const RECURSION_MAX: usize = 200;

/// Options whose machinery does not exist yet: named, so that nobody believes they work.
const OPTIONS_LATER: [&str; 8] = [
    "MAX_MEMCACHE_SIZE",
    "MEMCACHE_PARTITIONS",
    "WAL_MAX_FILE_SIZE",
    "WAL_SYNC",
    "STRICT_WRITE",
    "MAX_CACHE_READERS",
    "COOLING_DURATION",
    "PLACEMENT_POLICY",
];

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
    Ok(tokens)
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
        ("CREATE", _) => create(p),
        ("ALTER", _) => alter(p),
        ("DROP", _) => drop_object(p),
        ("SHOW", _) => show(p),
        ("DESCRIBE" | "DESC", _) => describe(p),
        ("USE", _) => {
            p.advance_token();
            Ok(Statement::Set("search_path".to_owned(), Some(name(p)?)))
        }
        ("INSERT", _) => insert(p),
        ("COMPACT", _) => compact(p),
        ("EXECUTE", _) => execute(p),
        ("DECLARE", _) => declare(p),
        ("FETCH", _) => fetch(p),
        ("CLOSE", _) => {
            p.advance_token();
            Ok(Statement::Close(name_or_all(p)?))
        }
        ("DEALLOCATE", _) => {
            p.advance_token();
            take(p, "PREPARE");
            Ok(Statement::Deallocate(name_or_all(p)?))
        }
        ("RESET", "ALL") => {
            p.advance_token();
            p.advance_token();
            Ok(Statement::ResetAll)
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
        ("SELECT" | "VALUES" | "WITH" | "TABLE" | "EXPLAIN" | "", _) => {
            query(parser.parse_statement()?)
        }
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
            Statement::Prepare(fold(&name), data_types, Box::new(prepared(*statement)?))
        }
        Sql::Copy { .. } => Statement::Copy(Box::new(statement)),
        Sql::Set(set) => setting(set)?,
        Sql::StartTransaction { begin, .. } => {
            Statement::Begin(if begin { "BEGIN" } else { "START TRANSACTION" })
        }
        Sql::Commit { .. } => Statement::Commit,
        Sql::Rollback { savepoint: None, .. } => Statement::Rollback,
        Sql::Discard { .. } => Statement::DiscardAll,
        other => {
            let text = other.to_string();
            let first = text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
            return Err(Error::unsupported(first).into());
        }
    })
}

fn prepared(statement: ast::Statement) -> Parsed<Statement> {
    use ast::Statement as Sql;
    match statement {
        Sql::Query(_) | Sql::Insert(_) | Sql::Delete(_) | Sql::Update(_) => standard(statement),
        _ => {
            Err(Error::syntax("only SELECT, VALUES, INSERT, UPDATE and DELETE are prepared").into())
        }
    }
}

/// Reads `EXECUTE name [(argument, ...)]`.
fn execute(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let name = name(p)?;
    let mut arguments = Vec::new();
    if p.consume_token(&Token::LParen) {
        arguments = p.parse_comma_separated(Parser::parse_expr)?;
        p.expect_token(&Token::RParen)?;
    }
    Ok(Statement::Execute(name, arguments))
}

/// Reads `ALL` or a name.
fn name_or_all(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    Ok(if take(p, "ALL") { None } else { Some(name(p)?) })
}

/// Reads `DECLARE name [options] CURSOR [WITH HOLD] FOR query`.
fn declare(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let name = name(p)?;
    loop {
        match word(p, 0).as_str() {
            "BINARY" => return Err(Error::unsupported("BINARY cursor").into()),
            "SCROLL" => return Err(Error::unsupported("SCROLL cursor").into()),
            "INSENSITIVE" | "ASENSITIVE" => p.advance_token(),
            "NO" => {
                p.advance_token();
                expect(p, "SCROLL")?;
            }
            _ => break,
        }
    }
    expect(p, "CURSOR")?;
    let hold = take_all(p, &["WITH", "HOLD"]);
    if !hold && word(p, 0) == "WITHOUT" {
        p.advance_token();
        expect(p, "HOLD")?;
    }
    expect(p, "FOR")?;
    let query = ast::Statement::Query(p.parse_query()?);
    let query = Statement::Query(Box::new(DfStatement::Statement(Box::new(query))));
    Ok(Statement::Declare(name, hold, Box::new(query)))
}

/// Reads `FETCH [direction] [FROM | IN] name`.
fn fetch(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let mut count = FetchCount::Rows(1);
    let first = word(p, 0);
    let follows = !matches!(p.peek_nth_token_ref(1).token, Token::EOF | Token::SemiColon);
    match first.as_str() {
        "NEXT" if follows => p.advance_token(),
        "ALL" if follows => {
            p.advance_token();
            count = FetchCount::All;
        }
        "FORWARD" if follows => {
            p.advance_token();
            if take(p, "ALL") {
                count = FetchCount::All;
            } else if let Some(rows) = row_count(p)? {
                count = rows;
            }
        }
        "PRIOR" | "FIRST" | "LAST" | "ABSOLUTE" | "RELATIVE" | "BACKWARD" if follows => {
            p.advance_token();
            if !take(p, "ALL") {
                row_count(p)?;
            }
            count = FetchCount::Backward;
        }
        _ => {
            if let Some(rows) = row_count(p)? {
                count = rows;
            }
        }
    }
    if !take(p, "FROM") {
        take(p, "IN");
    }
    Ok(Statement::Fetch(name(p)?, count))
}

fn row_count(p: &mut Parser<'_>) -> Parsed<Option<FetchCount>> {
    let backward = p.consume_token(&Token::Minus);
    let Token::Number(text, _) = p.peek_token_ref().token.clone() else { return Ok(None) };
    p.advance_token();
    let rows = text.parse::<usize>();
    let rows = rows.map_err(|_| Error::syntax(format!("number of rows {text}")))?;
    Ok(Some(if backward && rows > 0 { FetchCount::Backward } else { FetchCount::Rows(rows) }))
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

/// Returns the query of some expressions over the rows of a table.
pub(crate) fn select_from(
    relation: ast::TableWithJoins,
    selection: Option<ast::Expr>,
    projection: Vec<ast::SelectItem>,
) -> Statement {
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.from = vec![relation];
        select.selection = selection;
        select.projection = projection;
    }
    let query = ast::Statement::Query(Box::new(query));
    Statement::Query(Box::new(DfStatement::Statement(Box::new(query))))
}

/// Returns the query of one row of expressions.
pub(crate) fn select_values(values: &[ast::Expr]) -> Statement {
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        let item = |(at, expr): (usize, &ast::Expr)| ast::SelectItem::ExprWithAlias {
            expr: expr.clone(),
            alias: ast::Ident::new(format!("c{at}")),
        };
        select.projection = values.iter().enumerate().map(item).collect();
    }
    let query = ast::Statement::Query(Box::new(query));
    Statement::Query(Box::new(DfStatement::Statement(Box::new(query))))
}

/// Returns a query to be filled.
fn template() -> ast::Query {
    let parsed = Parser::new(&DIALECT).try_with_sql("SELECT 1").and_then(|mut p| p.parse_query());
    *parsed.expect("the text is a query")
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
        ast::Set::SingleAssignment { variable, values, .. } => {
            let all: Vec<String> = values.iter().map(text).collect();
            Statement::Set(variable.to_string().to_lowercase(), value(all.join(", ")))
        }
        ast::Set::SetTimeZone { value: zone, .. } => {
            Statement::Set("timezone".to_owned(), value(text(&zone)))
        }
        ast::Set::SetNames { charset_name, .. } => {
            Statement::Set("client_encoding".to_owned(), Some(charset_name.value))
        }
        ast::Set::SetTransaction { .. } => Statement::Discard("SET"),
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

fn if_not_exists(p: &mut Parser<'_>) -> bool {
    take_all(p, &["IF", "NOT", "EXISTS"])
}

fn if_exists(p: &mut Parser<'_>) -> bool {
    take_all(p, &["IF", "EXISTS"])
}

fn definition(definition: Definition) -> Parsed<Statement> {
    Ok(Statement::Definition(Box::new(definition)))
}

fn create(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    match what.as_str() {
        "TENANT" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let comment = tenant_options(p)?.unwrap_or_default();
            definition(Definition::CreateTenant { name, if_not_exists, comment })
        }
        "USER" | "ROLE" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let options = user_options(p)?;
            if what == "ROLE" && options.password.is_none() {
                let hint = "CREATE ROLE ... LOGIN PASSWORD '...' makes a user";
                return Err(Error::unsupported("CREATE ROLE without LOGIN").hint(hint).into());
            }
            definition(Definition::CreateUser { name, if_not_exists, options })
        }
        "DATABASE" | "SCHEMA" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let options = database_options(p)?;
            definition(Definition::CreateDatabase { name, if_not_exists, options })
        }
        "TABLE" => create_table(p),
        "TEMP" | "TEMPORARY" => Err(Error::unsupported("CREATE TEMP TABLE").into()),
        other => Err(Error::unsupported(format!("CREATE {other}")).into()),
    }
}

fn tenant_options(p: &mut Parser<'_>) -> Parsed<Option<String>> {
    let mut comment = None;
    if take(p, "WITH") {
        loop {
            let option = name(p)?;
            skip(p, &Token::Eq);
            match option.as_str() {
                "comment" => comment = Some(p.parse_literal_string()?),
                other => {
                    return Err(Error::unsupported(format!("tenant option {other}")).into());
                }
            }
            if !p.consume_token(&Token::Comma) {
                break;
            }
        }
    }
    Ok(comment)
}

fn user_options(p: &mut Parser<'_>) -> Parsed<UserOptions> {
    let mut options = UserOptions::default();
    take(p, "WITH");
    while !matches!(p.peek_token_ref().token, Token::EOF | Token::SemiColon) {
        let option = word(p, 0);
        p.advance_token();
        skip(p, &Token::Eq);
        match option.as_str() {
            "PASSWORD" if take(p, "NULL") => {
                return Err(Error::unsupported("PASSWORD NULL").into());
            }
            "PASSWORD" => options.password = Some(p.parse_literal_string()?),
            "ENCRYPTED" | "LOGIN" => {}
            "COMMENT" => options.comment = Some(p.parse_literal_string()?),
            "SUPERUSER" => options.admin = Some(true),
            "NOSUPERUSER" => options.admin = Some(false),
            "GRANTED_ADMIN" => options.admin = Some(boolean(p)?),
            other => return Err(Error::unsupported(format!("user option {other}")).into()),
        }
        skip(p, &Token::Comma);
    }
    Ok(options)
}

fn boolean(p: &mut Parser<'_>) -> Parsed<bool> {
    let found = p.next_token();
    match found.token.to_string().to_ascii_lowercase().trim_matches('\'') {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(p.expected::<()>("true or false", found).into()),
    }
}

fn database_options(p: &mut Parser<'_>) -> Parsed<Vec<AlterDatabaseOption>> {
    let mut options = Vec::new();
    if take(p, "WITH") {
        while !matches!(p.peek_token_ref().token, Token::EOF | Token::SemiColon) {
            options.push(database_option(p)?);
            skip(p, &Token::Comma);
        }
        if options.is_empty() {
            return Err(Error::syntax("syntax error: WITH without options").into());
        }
    }
    Ok(options)
}

fn database_option(p: &mut Parser<'_>) -> Parsed<AlterDatabaseOption> {
    const KNOWN: [&str; 5] = ["TTL", "SHARD", "VNODE_DURATION", "REPLICA", "PRECISION"];
    let found = p.next_token();
    let option = found.token.to_string().to_ascii_uppercase();
    skip(p, &Token::Eq);
    let invalid = |message: String| Failure::Own(Error::new("22023", message));
    match option.as_str() {
        "TTL" => Ok(AlterDatabaseOption::Ttl(span(p)?)),
        "VNODE_DURATION" => match span(p)? {
            Span::Ns(ns) => Ok(AlterDatabaseOption::VnodeDuration(ns)),
            Span::Infinite => Err(invalid("VNODE_DURATION must be finite".to_owned())),
        },
        "SHARD" => Ok(AlterDatabaseOption::Shard(count(p, "SHARD")?)),
        "REPLICA" => Ok(AlterDatabaseOption::Replica(count(p, "REPLICA")?)),
        "PRECISION" => {
            let text = p.parse_literal_string()?;
            let precision = match text.to_ascii_lowercase().as_str() {
                "ms" => Precision::Ms,
                "us" => Precision::Us,
                "ns" => Precision::Ns,
                _ => return Err(invalid(format!("PRECISION \"{text}\" is none of ms, us, ns"))),
            };
            Ok(AlterDatabaseOption::Precision(precision))
        }
        other if OPTIONS_LATER.contains(&other) => {
            Err(Error::unsupported(format!("database option {other}")).into())
        }
        other => {
            let error = Error::syntax(format!("unknown database option {other}"));
            Err(match nearest(other, KNOWN.into_iter()) {
                Some(near) => error.hint(format!("perhaps you meant {near}")),
                None => error.hint("options are TTL, SHARD, VNODE_DURATION, REPLICA, PRECISION"),
            }
            .into())
        }
    }
}

fn span(p: &mut Parser<'_>) -> Parsed<Span> {
    let found = p.next_token();
    let text = match &found.token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
        Token::Word(word) => word.value.clone(),
        _ => return Err(p.expected::<()>("a duration", found).into()),
    };
    parse_span(&text).map_err(|message| Error::new("22023", message).into())
}

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

fn create_table(p: &mut Parser<'_>) -> Parsed<Statement> {
    let if_not_exists = if_not_exists(p);
    let name = object_name(p)?;
    if word(p, 0) == "AS" {
        return Err(Error::unsupported("CREATE TABLE AS").into());
    }
    let mut columns = Vec::new();
    let mut key: Vec<String> = Vec::new();
    p.expect_token(&Token::LParen)?;
    loop {
        let (first, second) = (word(p, 0), p.peek_nth_token_ref(1).token.clone());
        if first == "TAGS" && second == Token::LParen {
            p.advance_token();
            for tag in names(p)? {
                columns.push(ColumnDefinition {
                    name: tag,
                    kind: NewColumnKind::Tag,
                    not_null: false,
                });
            }
        } else if take_all(p, &["PRIMARY", "KEY"]) {
            key = names(p)?;
        } else if matches!(
            first.as_str(),
            "CONSTRAINT" | "UNIQUE" | "CHECK" | "FOREIGN" | "EXCLUDE"
        ) && !matches!(second, Token::Comma)
        {
            return Err(Error::unsupported(format!("constraint {first}")).into());
        } else {
            columns.push(column(p)?);
        }
        if !p.consume_token(&Token::Comma) {
            break;
        }
    }
    p.expect_token(&Token::RParen)?;
    let columns = apply_key(columns, &key)?;
    definition(Definition::CreateTable { name, if_not_exists, columns })
}

fn names(p: &mut Parser<'_>) -> Parsed<Vec<String>> {
    p.expect_token(&Token::LParen)?;
    let mut names = vec![name(p)?];
    while p.consume_token(&Token::Comma) {
        names.push(name(p)?);
    }
    p.expect_token(&Token::RParen)?;
    Ok(names)
}

fn column(p: &mut Parser<'_>) -> Parsed<ColumnDefinition> {
    let name = name(p)?;
    let data_type = p.parse_data_type()?;
    let kind = match column_type(&data_type)? {
        ColumnType::Time if name == "time" => NewColumnKind::Time,
        ColumnType::Time => {
            let hint = "store instants as BIGINT, or make the instant of the row its \"time\"";
            let message = format!("column \"{name}\": a table has one TIMESTAMP column, \"time\"");
            return Err(Error::new("42701", message).hint(hint).into());
        }
        ColumnType::Value(..) if name == "time" => {
            return Err(Error::new("42804", "column \"time\" must be a TIMESTAMP").into());
        }
        ColumnType::Value(value_type, widened) => NewColumnKind::Field(value_type, widened),
    };
    let not_null = column_constraints(p, kind)?;
    Ok(ColumnDefinition { name, kind, not_null })
}

fn column_constraints(p: &mut Parser<'_>, kind: NewColumnKind) -> Parsed<bool> {
    let mut not_null = kind == NewColumnKind::Time;
    loop {
        if take(p, "CODEC") {
            let codec = names(p)?;
            if codec != ["default"] {
                let codec = codec.join(", ").to_uppercase();
                return Err(Error::unsupported(format!("CODEC({codec})")).into());
            }
        } else if take_all(p, &["NOT", "NULL"]) {
            not_null = true;
        } else if take(p, "NULL") {
            not_null = false;
        } else {
            break;
        }
    }
    let next = word(p, 0);
    if !next.is_empty() {
        let hint = "rows are identified by their tags and their time";
        return Err(Error::unsupported(format!("column constraint {next}")).hint(hint).into());
    }
    Ok(not_null)
}

/// Makes tags of the columns a PRIMARY KEY names besides `time`.
fn apply_key(mut columns: Vec<ColumnDefinition>, key: &[String]) -> Parsed<Vec<ColumnDefinition>> {
    for name in key.iter().filter(|name| *name != "time") {
        let Some(column) = columns.iter_mut().find(|column| column.name == *name) else {
            let message = format!("column \"{name}\" named in key does not exist");
            return Err(Error::new("42703", message).into());
        };
        match column.kind {
            NewColumnKind::Field(model::ValueType::Str, _) => column.kind = NewColumnKind::Tag,
            NewColumnKind::Tag => {}
            _ => {
                let message = format!("key column \"{name}\" must be a STRING, as tags are");
                return Err(Error::new("42804", message).into());
            }
        }
    }
    for column in &columns {
        if column.not_null && matches!(column.kind, NewColumnKind::Field(..)) {
            let message = format!("NOT NULL of field \"{}\"", column.name);
            return Err(Error::unsupported(message).hint("NOT NULL is kept on tags").into());
        }
    }
    columns.retain(|column| column.kind != NewColumnKind::Time);
    columns.sort_by_key(|column| column.kind != NewColumnKind::Tag);
    Ok(columns)
}

fn alter(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    match what.as_str() {
        "TENANT" => {
            let name = name(p)?;
            let action = alter_tenant(p)?;
            definition(Definition::AlterTenant { name, action })
        }
        "USER" | "ROLE" => {
            let name = name(p)?;
            let action = if take_all(p, &["RENAME", "TO"]) {
                UserAction::Rename(self::name(p)?)
            } else {
                take(p, "SET");
                UserAction::Set(user_options(p)?)
            };
            definition(Definition::AlterUser { name, action })
        }
        "DATABASE" | "SCHEMA" => {
            let name = name(p)?;
            expect(p, "SET")?;
            let option = database_option(p)?;
            definition(Definition::AlterDatabase { name, option })
        }
        "TABLE" => {
            let name = object_name(p)?;
            let action = alter_table(p)?;
            definition(Definition::AlterTable { name, action })
        }
        other => Err(Error::unsupported(format!("ALTER {other}")).into()),
    }
}

fn alter_tenant(p: &mut Parser<'_>) -> Parsed<TenantAction> {
    if take_all(p, &["ADD", "USER"]) || take_all(p, &["SET", "USER"]) {
        let user = name(p)?;
        expect(p, "AS")?;
        return Ok(TenantAction::AddUser(user, name(p)?));
    }
    if take_all(p, &["REMOVE", "USER"]) {
        return Ok(TenantAction::RemoveUser(name(p)?));
    }
    if take_all(p, &["UNSET", "COMMENT"]) {
        return Ok(TenantAction::Comment(String::new()));
    }
    if take_all(p, &["SET", "COMMENT"]) {
        skip(p, &Token::Eq);
        return Ok(TenantAction::Comment(p.parse_literal_string()?));
    }
    let found = p.peek_token();
    Err(p
        .expected::<()>("SET comment, UNSET comment, ADD USER, SET USER or REMOVE USER", found)
        .into())
}

fn alter_table(p: &mut Parser<'_>) -> Parsed<AlterTableAction> {
    if take_all(p, &["ADD", "TAG"]) {
        let tag = ColumnDefinition { name: name(p)?, kind: NewColumnKind::Tag, not_null: false };
        return Ok(AlterTableAction::Add(tag));
    }
    if take_all(p, &["ADD", "FIELD"]) || take_all(p, &["ADD", "COLUMN"]) || take(p, "ADD") {
        let column = column(p)?;
        if column.not_null {
            return Err(Error::unsupported("ADD of a NOT NULL column").into());
        }
        return Ok(AlterTableAction::Add(column));
    }
    if take_all(p, &["DROP", "COLUMN"]) || take_all(p, &["DROP", "FIELD"]) || take(p, "DROP") {
        return Ok(AlterTableAction::DropColumn(name(p)?));
    }
    if take_all(p, &["RENAME", "TO"]) {
        return Ok(AlterTableAction::Rename(name(p)?));
    }
    if take_all(p, &["RENAME", "COLUMN"]) || take(p, "RENAME") {
        let from = name(p)?;
        expect(p, "TO")?;
        return Ok(AlterTableAction::RenameColumn(from, name(p)?));
    }
    if word(p, 0) == "ALTER" {
        return Err(Error::unsupported("ALTER of a column's codec or type").into());
    }
    let found = p.peek_token();
    Err(p.expected::<()>("ADD, DROP or RENAME", found).into())
}

fn drop_object(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    let if_exists = if_exists(p);
    let dropped = match what.as_str() {
        "TENANT" => Definition::DropTenant { name: name(p)?, if_exists },
        "USER" | "ROLE" => Definition::DropUser { name: name(p)?, if_exists },
        "DATABASE" | "SCHEMA" => Definition::DropDatabase { name: name(p)?, if_exists },
        "TABLE" => {
            let mut names = vec![object_name(p)?];
            while p.consume_token(&Token::Comma) {
                names.push(object_name(p)?);
            }
            Definition::DropTable { names, if_exists }
        }
        other => return Err(Error::unsupported(format!("DROP {other}")).into()),
    };
    if word(p, 0) == "AFTER" {
        return Err(Error::unsupported("DROP ... AFTER").into());
    }
    if !take(p, "CASCADE") {
        take(p, "RESTRICT");
    }
    definition(dropped)
}

fn show(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    let shown = match what.as_str() {
        "DATABASES" | "SCHEMAS" => Show::Databases,
        "TABLES" => {
            let on = ["ON", "FROM", "IN"].iter().any(|keyword| take(p, keyword));
            Show::Tables(if on { Some(name(p)?) } else { None })
        }
        "TENANTS" => Show::Tenants,
        "COMPACTIONS" => Show::Compactions,
        "USERS" => Show::Users,
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
        assert!(matches!(one("BEGIN"), Statement::Begin("BEGIN")));
        let set = one("SET TIME ZONE 'UTC'");
        assert!(
            matches!(set, Statement::Set(name, Some(value)) if name == "timezone" && value == "UTC")
        );
    }
}
