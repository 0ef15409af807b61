//! What concerns views.

use model::{DatabaseId, ErrorKind, TableId};

use crate::catalog::{Catalog, Entity, Key, View};
use crate::error::{Error, Result};

use super::databases::database_of;
use super::{Changes, check_name};

/// The most views of a database.
const VIEWS_MAX: usize = 10_000;

/// A view to be made.
pub(super) struct NewView {
    pub(super) database: DatabaseId,
    pub(super) name: String,
    pub(super) columns: Vec<(String, String)>,
    pub(super) definition: String,
    pub(super) external: bool,
}

pub(super) fn create_view(
    catalog: &Catalog,
    view: NewView,
    replace: bool,
    changes: &mut Changes,
) -> Result<()> {
    let NewView { database, name, columns, definition, external } = view;
    check_name("table", &name)?;
    database_of(catalog, database)?;
    let old = catalog.view(database, &name);
    let replaces = old.is_none_or(|old| replace && old.external == external);
    if catalog.table(database, &name).is_some() || !replaces {
        return Err(Error::exists("table", &name));
    }
    if catalog.views(database).count() >= VIEWS_MAX {
        let message = format!("a database has {VIEWS_MAX} views");
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    let id = match old {
        Some(old) => old.id,
        None => {
            changes.counters.table += 1;
            TableId(changes.counters.table)
        }
    };
    changes.put(Entity::View(View { id, database, name, columns, definition, external }));
    Ok(())
}

pub(super) fn drop_views(catalog: &Catalog, database: DatabaseId, changes: &mut Changes) {
    for view in catalog.views(database) {
        changes.delete(Key::View(view.id));
    }
}
