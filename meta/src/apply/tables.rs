//! What concerns tables and their columns.

use model::schema::{COLUMNS_MAX, TAGS_MAX};
use model::{
    Codec, Column, ColumnId, ColumnKind, DatabaseId, ErrorKind, TableId, TableSchema, ValueType,
};

use crate::catalog::{Catalog, Entity};
use crate::command::{AlterTable, NewColumn};
use crate::error::{Error, Result};

use super::databases::database_of;
use super::{Changes, check_name};

pub(super) fn create_table(
    catalog: &Catalog,
    database: DatabaseId,
    name: String,
    columns: &[NewColumn],
    changes: &mut Changes,
) -> Result<()> {
    check_name("table", &name)?;
    database_of(catalog, database)?;
    if catalog.table(database, &name).is_some() || catalog.view(database, &name).is_some() {
        return Err(Error::exists("table", &name));
    }
    changes.counters.table += 1;
    let time = Column {
        id: ColumnId::TIME,
        name: "time".to_owned(),
        kind: ColumnKind::Time,
        not_null: true,
        codec: Codec::Default,
        shape: None,
    };
    let mut table = TableSchema {
        id: TableId(changes.counters.table),
        database,
        name,
        version: 1,
        next_column: 1,
        columns: vec![time],
    };
    columns.iter().try_for_each(|column| add_column(&mut table, column))?;
    if table.fields().next().is_none() {
        let message = format!("table \"{}\" needs at least one field", table.name);
        return Err(Error::refused(ErrorKind::InvalidInput, message));
    }
    changes.put(Entity::Table(table));
    Ok(())
}

fn add_column(table: &mut TableSchema, column: &NewColumn) -> Result<()> {
    check_name("column", &column.name)?;
    if table.column(&column.name).is_some() {
        let message = format!("column \"{}\" of \"{}\" already exists", column.name, table.name);
        return Err(Error::refused(ErrorKind::AlreadyExists, message));
    }
    let limit = |message: String| Err(Error::refused(ErrorKind::LimitReached, message));
    check_codec(&column.name, column.kind, column.codec)?;
    if column.shape.is_some() && column.kind != ColumnKind::Field(ValueType::Str) {
        let message = format!("column \"{}\": only texts are shapes", column.name);
        return Err(Error::refused(ErrorKind::InvalidInput, message));
    }
    if table.columns.len() >= COLUMNS_MAX {
        return limit(format!("table \"{}\" has {COLUMNS_MAX} columns", table.name));
    }
    if column.kind == ColumnKind::Tag && table.tags().count() >= TAGS_MAX {
        return limit(format!("table \"{}\" has {TAGS_MAX} tags", table.name));
    }
    table.columns.push(Column {
        id: ColumnId(table.next_column),
        name: column.name.clone(),
        kind: column.kind,
        not_null: column.not_null,
        codec: column.codec,
        shape: column.shape,
    });
    table.next_column += 1;
    Ok(())
}

fn check_codec(name: &str, kind: ColumnKind, codec: Codec) -> Result<()> {
    if codec.fits(kind) {
        return Ok(());
    }
    let kind = match kind {
        ColumnKind::Time => "the time of a row".to_owned(),
        ColumnKind::Tag => "a tag".to_owned(),
        ColumnKind::Field(value_type) => format!("a field of type {}", value_type.sql()),
    };
    let message = format!("column \"{name}\": {kind} cannot have codec {codec}");
    Err(Error::refused(ErrorKind::InvalidInput, message))
}

pub(super) fn table_of(catalog: &Catalog, id: TableId) -> Result<&TableSchema> {
    let table = catalog.table_by_id(id);
    table.map(AsRef::as_ref).ok_or_else(|| Error::not_found("table", &id.to_string()))
}

pub(super) fn alter_table(
    catalog: &Catalog,
    id: TableId,
    change: AlterTable,
    changes: &mut Changes,
) -> Result<()> {
    let mut table = table_of(catalog, id)?.clone();
    match change {
        AlterTable::Add(column) => add_column(&mut table, &column)?,
        AlterTable::Drop(name) => drop_column(&mut table, &name)?,
        AlterTable::RenameColumn { from, to } => rename_column(&mut table, &from, to)?,
        AlterTable::Codec { column, codec } => {
            let known = table.columns.iter_mut().find(|known| known.name == column);
            let known = known.ok_or_else(|| Error::not_found("column", &column))?;
            check_codec(&column, known.kind, codec)?;
            known.codec = codec;
        }
        AlterTable::Rename(name) => {
            check_name("table", &name)?;
            if catalog.table(table.database, &name).is_some() {
                return Err(Error::exists("table", &name));
            }
            table.name = name;
        }
    }
    table.version += 1;
    changes.put(Entity::Table(table));
    Ok(())
}

fn no_column(table: &TableSchema, name: &str) -> Error {
    let message = format!("column \"{name}\" of table \"{}\" does not exist", table.name);
    Error::refused(ErrorKind::NotFound, message)
}

fn drop_column(table: &mut TableSchema, name: &str) -> Result<()> {
    let column = table.column(name).ok_or_else(|| no_column(table, name))?;
    let conflict = |message: String| Err(Error::refused(ErrorKind::Conflict, message));
    match column.kind {
        ColumnKind::Time => return conflict("column \"time\" cannot be dropped".to_owned()),
        ColumnKind::Tag => {
            return conflict(format!(
                "tag \"{name}\" cannot be dropped: rows that differ only in it would become one"
            ));
        }
        ColumnKind::Field(_) if table.fields().count() == 1 => {
            return conflict(format!("\"{name}\" is the last field of table \"{}\"", table.name));
        }
        ColumnKind::Field(_) => {}
    }
    table.columns.retain(|column| column.name != name);
    Ok(())
}

fn rename_column(table: &mut TableSchema, from: &str, to: String) -> Result<()> {
    check_name("column", &to)?;
    if table.column(&to).is_some() {
        let message = format!("column \"{to}\" of \"{}\" already exists", table.name);
        return Err(Error::refused(ErrorKind::AlreadyExists, message));
    }
    let missing = no_column(table, from);
    let column = table.columns.iter_mut().find(|column| column.name == from).ok_or(missing)?;
    if column.kind == ColumnKind::Time {
        let message = "column \"time\" cannot be renamed";
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    column.name = to;
    Ok(())
}
