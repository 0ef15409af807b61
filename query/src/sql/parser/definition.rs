//! Reads what changes the catalog: CREATE, ALTER, DROP.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use meta::{Precision, SystemRole};
use model::size::parse_bytes;
use model::time::{Span, parse_span};
use model::{Codec, ValueType};

use super::{
    Failure, Parsed, count, expect, external, name, object_name, skip, take, take_all, temporary,
    tenants, word,
};
use crate::error::{Error, nearest};
use crate::sql::definitions::{
    AlterDatabaseOption, AlterTableAction, ColumnDefinition, Definition, NewColumnKind,
    TenantAction, TenantOptions, UserAction, UserOptions,
};
use crate::sql::{Statement, TableAs};
use crate::types::{ColumnType, column_type};

/// Options whose machinery does not exist yet: named, so that nobody believes they work.
const OPTIONS_LATER: [&str; 1] = ["COOLING_DURATION"];

pub(super) fn if_not_exists(p: &mut Parser<'_>) -> bool {
    take_all(p, &["IF", "NOT", "EXISTS"])
}

fn if_exists(p: &mut Parser<'_>) -> bool {
    take_all(p, &["IF", "EXISTS"])
}

fn definition(definition: Definition) -> Parsed<Statement> {
    Ok(Statement::Definition(Box::new(definition)))
}

pub(super) fn create(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    match what.as_str() {
        "TENANT" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let options =
                if take(p, "WITH") { tenants::options(p)? } else { TenantOptions::default() };
            definition(Definition::CreateTenant { name, if_not_exists, options })
        }
        "USER" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let options = user_options(p)?;
            definition(Definition::CreateUser { name, if_not_exists, options })
        }
        "ROLE" => create_role(p),
        "DATABASE" | "SCHEMA" => {
            let if_not_exists = if_not_exists(p);
            let name = name(p)?;
            let options = database_options(p)?;
            definition(Definition::CreateDatabase { name, if_not_exists, options })
        }
        "TABLE" => create_table(p),
        "EXTERNAL" => external::create(p),
        "VIEW" => create_view(p, false),
        "OR" if take_all(p, &["REPLACE", "VIEW"]) => create_view(p, true),
        "TEMP" | "TEMPORARY" => temporary::create(p),
        "LOCAL" | "GLOBAL" if take(p, "TEMP") || take(p, "TEMPORARY") => temporary::create(p),
        other => Err(Error::unsupported(format!("CREATE {other}")).into()),
    }
}

/// Reads CREATE ROLE: a role of the tenant, or a user where it says LOGIN or gives a password.
fn create_role(p: &mut Parser<'_>) -> Parsed<Statement> {
    let if_not_exists = if_not_exists(p);
    let name = name(p)?;
    take(p, "NOLOGIN");
    let inherits = if take(p, "INHERIT") {
        match word(p, 0).as_str() {
            "OWNER" => SystemRole::Owner,
            "MEMBER" | "" => SystemRole::Member,
            _ => return Err(p.expected::<()>("owner or member", p.peek_token()).into()),
        }
    } else if matches!(p.peek_token_ref().token, Token::EOF | Token::SemiColon) {
        SystemRole::Member
    } else {
        let options = user_options(p)?;
        return definition(Definition::CreateUser { name, if_not_exists, options });
    };
    if !matches!(p.peek_token_ref().token, Token::EOF | Token::SemiColon) {
        p.advance_token();
    }
    definition(Definition::CreateRole { name, if_not_exists, inherits })
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
            "HASH_PASSWORD" => options.verifier = Some(p.parse_literal_string()?),
            "RSA_PUBLIC_KEY" => options.rsa_public_key = Some(p.parse_literal_string()?),
            "MUST_CHANGE_PASSWORD" => options.must_change_password = Some(boolean(p)?),
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
    const KNOWN: [&str; 11] = [
        "TTL",
        "SHARD",
        "VNODE_DURATION",
        "REPLICA",
        "PRECISION",
        "STRICT_WRITE",
        "MAX_MEMCACHE_SIZE",
        "MEMCACHE_PARTITIONS",
        "WAL_MAX_FILE_SIZE",
        "MAX_CACHE_READERS",
        "PLACEMENT_POLICY",
    ];
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
        "STRICT_WRITE" => Ok(AlterDatabaseOption::StrictWrite(boolean(p)?)),
        "MAX_MEMCACHE_SIZE" => Ok(AlterDatabaseOption::MaxMemcacheSize(bytes(p, &option)?)),
        "WAL_MAX_FILE_SIZE" => Ok(AlterDatabaseOption::WalMaxFileSize(bytes(p, &option)?)),
        "MEMCACHE_PARTITIONS" => match count(p, "MEMCACHE_PARTITIONS")? {
            count @ 1..=PARTITIONS_MAX => Ok(AlterDatabaseOption::MemcachePartitions(count)),
            _ => Err(invalid(format!("MEMCACHE_PARTITIONS is above {PARTITIONS_MAX}"))),
        },
        "MAX_CACHE_READERS" => {
            Ok(AlterDatabaseOption::MaxCacheReaders(count(p, "MAX_CACHE_READERS")?))
        }
        "PLACEMENT_POLICY" => {
            let policy = if take(p, "NULL") { String::new() } else { name(p)? };
            Ok(AlterDatabaseOption::Placement(policy))
        }
        "WAL_SYNC" => {
            if boolean(p)? {
                return Ok(AlterDatabaseOption::WalSync);
            }
            let hint = "a write that was acknowledged is on stable storage, always";
            Err(Error::unsupported("WAL_SYNC 'false'").hint(hint).into())
        }
        other if OPTIONS_LATER.contains(&other) => {
            Err(Error::unsupported(format!("database option {other}")).into())
        }
        other => {
            let error = Error::syntax(format!("unknown database option {other}"));
            Err(match nearest(other, KNOWN.into_iter()) {
                Some(near) => error.hint(format!("perhaps you meant {near}")),
                None => error.hint(format!("options are {}", KNOWN.join(", "))),
            }
            .into())
        }
    }
}

/// Memory or log of a vnode below this would make a file of every few rows.
const FLUSH_BYTES_MIN: u64 = 1 << 20;
/// A flush writes so many files at most, each by a thread.
const PARTITIONS_MAX: u32 = 64;

/// Reads a size from which on vnodes are flushed.
fn bytes(p: &mut Parser<'_>, option: &str) -> Parsed<u64> {
    let found = p.next_token();
    let text = match &found.token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
        _ => return Err(p.expected::<()>("a size as in '128MiB'", found).into()),
    };
    let bytes = parse_bytes(&text).map_err(|message| Error::new("22023", message))?;
    if bytes < FLUSH_BYTES_MIN {
        return Err(Error::new("22023", format!("{option} \"{text}\" is below 1 MiB")).into());
    }
    Ok(bytes)
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

fn create_table(p: &mut Parser<'_>) -> Parsed<Statement> {
    let if_not_exists = if_not_exists(p);
    let name = object_name(p)?;
    let tags = if take(p, "TAGS") { names(p)? } else { Vec::new() };
    if take(p, "AS") {
        let query = p.parse_query()?;
        return Ok(Statement::CreateTableAs(Box::new(TableAs {
            name,
            if_not_exists,
            tags,
            query,
        })));
    }
    let mut columns = Vec::new();
    let mut key: Vec<String> = Vec::new();
    p.expect_token(&Token::LParen)?;
    loop {
        let (first, second) = (word(p, 0), p.peek_nth_token_ref(1).token.clone());
        if first == "TAGS" && second == Token::LParen {
            p.advance_token();
            for tag in names(p)? {
                columns.push(tag_column(tag));
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

/// Reads `name [(column, …)] AS query`.
fn create_view(p: &mut Parser<'_>, replace: bool) -> Parsed<Statement> {
    let name = object_name(p)?;
    let columns = if p.peek_token_ref().token == Token::LParen { names(p)? } else { Vec::new() };
    expect(p, "AS")?;
    definition(Definition::CreateView { name, columns, replace, query: p.parse_query()? })
}

pub(super) fn names(p: &mut Parser<'_>) -> Parsed<Vec<String>> {
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
    let column_type = column_type(&data_type)?;
    let shape = match column_type {
        ColumnType::Shape(shape) => Some(shape),
        ColumnType::Time | ColumnType::Value(..) => None,
    };
    let kind = match column_type {
        ColumnType::Time if name == "time" => NewColumnKind::Time,
        ColumnType::Time => {
            let hint = "store instants as BIGINT, or make the instant of the row its \"time\"";
            let message = format!("column \"{name}\": a table has one TIMESTAMP column, \"time\"");
            return Err(Error::new("42701", message).hint(hint).into());
        }
        ColumnType::Value(..) | ColumnType::Shape(_) if name == "time" => {
            return Err(Error::new("42804", "column \"time\" must be a TIMESTAMP").into());
        }
        ColumnType::Value(value_type, widened) => NewColumnKind::Field(value_type, widened),
        ColumnType::Shape(_) => NewColumnKind::Field(ValueType::Str, false),
    };
    let (not_null, codec) = column_constraints(p, kind)?;
    Ok(ColumnDefinition { name, kind, not_null, codec, shape })
}

fn tag_column(name: String) -> ColumnDefinition {
    let (kind, codec) = (NewColumnKind::Tag, Codec::Default);
    ColumnDefinition { name, kind, not_null: false, codec, shape: None }
}

/// Reads `(name)` or `(name(number))`.
fn codec(p: &mut Parser<'_>) -> Parsed<Codec> {
    p.expect_token(&Token::LParen)?;
    let name = name(p)?;
    let argument = if p.consume_token(&Token::LParen) {
        let found = p.next_token();
        let number = match &found.token {
            Token::Number(text, _) => text.parse::<f64>().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| p.expected::<()>("a number", found))?;
        p.expect_token(&Token::RParen)?;
        Some(number)
    } else {
        None
    };
    p.expect_token(&Token::RParen)?;
    Codec::named(&name, argument).map_err(|message| Error::new("22023", message).into())
}

/// Returns whether NULL is refused, and the codec.
fn column_constraints(p: &mut Parser<'_>, kind: NewColumnKind) -> Parsed<(bool, Codec)> {
    let mut not_null = kind == NewColumnKind::Time;
    let mut chosen = Codec::Default;
    loop {
        if take(p, "CODEC") {
            chosen = codec(p)?;
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
    Ok((not_null, chosen))
}

/// Makes tags of the columns a PRIMARY KEY names besides `time`.
fn apply_key(mut columns: Vec<ColumnDefinition>, key: &[String]) -> Parsed<Vec<ColumnDefinition>> {
    for name in key.iter().filter(|name| *name != "time") {
        let Some(column) = columns.iter_mut().find(|column| column.name == *name) else {
            let message = format!("column \"{name}\" named in key does not exist");
            return Err(Error::new("42703", message).into());
        };
        match column.kind {
            NewColumnKind::Field(ValueType::Str, _) if column.shape.is_none() => {
                column.kind = NewColumnKind::Tag;
            }
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

pub(super) fn alter(p: &mut Parser<'_>) -> Parsed<Statement> {
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
        let comment = Some(String::new());
        return Ok(TenantAction::Set(TenantOptions { comment, ..TenantOptions::default() }));
    }
    if take_all(p, &["UNSET", "DROP_AFTER"]) {
        return Ok(TenantAction::UnsetDropAfter);
    }
    if take_all(p, &["UNSET", "OBJECT_CONFIG"]) || take_all(p, &["UNSET", "_LIMITER"]) {
        return Ok(TenantAction::UnsetLimits);
    }
    if take(p, "SET") {
        return Ok(TenantAction::Set(tenants::options(p)?));
    }
    let found = p.peek_token();
    Err(p
        .expected::<()>("SET or UNSET of an option, ADD USER, SET USER or REMOVE USER", found)
        .into())
}

fn alter_table(p: &mut Parser<'_>) -> Parsed<AlterTableAction> {
    if take_all(p, &["ADD", "TAG"]) {
        let if_not_exists = if_not_exists(p);
        return Ok(AlterTableAction::Add { column: tag_column(name(p)?), if_not_exists });
    }
    if take_all(p, &["ADD", "FIELD"]) || take_all(p, &["ADD", "COLUMN"]) || take(p, "ADD") {
        let if_not_exists = if_not_exists(p);
        let column = column(p)?;
        if column.not_null {
            return Err(Error::unsupported("ADD of a NOT NULL column").into());
        }
        return Ok(AlterTableAction::Add { column, if_not_exists });
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
    if take(p, "ALTER") {
        take(p, "COLUMN");
        let column = name(p)?;
        if take_all(p, &["SET", "CODEC"]) {
            return Ok(AlterTableAction::Codec(column, codec(p)?));
        }
        return Err(Error::unsupported("ALTER of a column's type").into());
    }
    let found = p.peek_token();
    Err(p.expected::<()>("ADD, DROP or RENAME", found).into())
}

/// Reads how long what is dropped can be brought back.
fn after(p: &mut Parser<'_>) -> Parsed<Option<i64>> {
    if !take(p, "AFTER") {
        return Ok(None);
    }
    match span(p)? {
        Span::Ns(ns) => Ok(Some(ns)),
        Span::Infinite => Err(Error::new("22023", "AFTER needs a finite duration").into()),
    }
}

/// Reads `RECOVER DATABASE|TENANT [IF EXISTS] name`.
pub(super) fn recover(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let is_tenant = take(p, "TENANT");
    if !is_tenant && !take(p, "DATABASE") {
        expect(p, "SCHEMA")?;
    }
    let if_exists = if_exists(p);
    let name = name(p)?;
    definition(if is_tenant {
        Definition::RecoverTenant { name, if_exists }
    } else {
        Definition::RecoverDatabase { name, if_exists }
    })
}

pub(super) fn drop_object(p: &mut Parser<'_>) -> Parsed<Statement> {
    p.advance_token();
    let what = word(p, 0);
    p.advance_token();
    let if_exists = if_exists(p);
    let dropped = match what.as_str() {
        "TENANT" => Definition::DropTenant { name: name(p)?, if_exists, after: after(p)? },
        "USER" => Definition::DropUser { name: name(p)?, if_exists },
        "ROLE" => Definition::DropRole { name: name(p)?, if_exists },
        "DATABASE" | "SCHEMA" => {
            Definition::DropDatabase { name: name(p)?, if_exists, after: after(p)? }
        }
        "TABLE" | "VIEW" => {
            let mut names = vec![object_name(p)?];
            while p.consume_token(&Token::Comma) {
                names.push(object_name(p)?);
            }
            if what == "VIEW" {
                Definition::DropView { names, if_exists }
            } else {
                Definition::DropTable { names, if_exists }
            }
        }
        other => return Err(Error::unsupported(format!("DROP {other}")).into()),
    };
    if !take(p, "CASCADE") {
        take(p, "RESTRICT");
    }
    definition(dropped)
}
