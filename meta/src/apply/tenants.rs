//! What concerns tenants.

use std::collections::BTreeMap;

use model::{ErrorKind, TenantId};

use crate::catalog::{Catalog, Entity, Key, Role, Tenant};
use crate::command::{Command, TenantChange};
use crate::error::{Error, Result};
use crate::limits::{ObjectLimits, Rates};

use super::databases::{new_database, options_within, remove_database};
use super::roles::change_roles;
use super::users::user_of;
use super::{Changes, FIRST_DATABASE, FIRST_TENANT, check_free, check_limit, check_name};

/// Makes, changes and drops tenants; other commands change nothing.
pub(super) fn define_tenant(
    catalog: &Catalog,
    command: Command,
    changes: &mut Changes,
) -> Result<()> {
    match command {
        Command::CreateTenant { name, comment, drop_after_ns, limits, rates } => {
            check_name("tenant", &name)?;
            check_free("tenant", &name, catalog.named_tenant(&name).map(|one| one.drop_at))?;
            let tenant = new_tenant(name, comment, (drop_after_ns, limits, rates), changes);
            let options = options_within(&limits);
            new_database(tenant, FIRST_DATABASE.to_owned(), options, changes);
        }
        Command::AlterTenant { tenant, change } => alter_tenant(catalog, tenant, change, changes)?,
        Command::DropTenant { tenant } => drop_tenant(catalog, tenant, changes)?,
        Command::HideTenant { tenant, drop_at } => {
            let mut tenant = droppable_tenant(catalog, tenant)?.clone();
            tenant.drop_at = Some(drop_at);
            changes.put(Entity::Tenant(tenant));
        }
        Command::DropHiddenTenant { tenant, drop_at } => {
            let found = catalog.tenant_by_id(tenant);
            if found.is_some_and(|found| found.drop_at == Some(drop_at)) {
                drop_tenant(catalog, tenant, changes)?;
            }
        }
        Command::RecoverTenant { tenant } => {
            let mut tenant = tenant_of(catalog, tenant)?.clone();
            tenant.drop_at = None;
            changes.put(Entity::Tenant(tenant));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn new_tenant(
    name: String,
    comment: String,
    (drop_after_ns, limits, rates): (Option<i64>, ObjectLimits, Rates),
    changes: &mut Changes,
) -> TenantId {
    changes.counters.tenant += 1;
    let id = TenantId(changes.counters.tenant);
    changes.put(Entity::Tenant(Tenant {
        id,
        name,
        comment,
        members: BTreeMap::new(),
        roles: BTreeMap::new(),
        drop_after_ns,
        limits,
        rates,
        drop_at: None,
    }));
    id
}

pub(super) fn tenant_of(catalog: &Catalog, id: TenantId) -> Result<&Tenant> {
    let tenant = catalog.tenant_by_id(id);
    tenant.map(AsRef::as_ref).ok_or_else(|| Error::not_found("tenant", &id.to_string()))
}

fn alter_tenant(
    catalog: &Catalog,
    id: TenantId,
    change: TenantChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut tenant = tenant_of(catalog, id)?.clone();
    match change {
        TenantChange::Comment(comment) => tenant.comment = comment,
        TenantChange::Options { comment, drop_after_ns, unset_drop_after, limits, rates } => {
            if tenant.name == FIRST_TENANT
                && (limits.is_some_and(|one| one != ObjectLimits::default())
                    || rates.as_ref().is_some_and(|rates| !rates.is_empty()))
            {
                let message = format!("tenant \"{FIRST_TENANT}\" cannot be limited");
                return Err(Error::refused(ErrorKind::Conflict, message));
            }
            tenant.comment = comment.unwrap_or(tenant.comment);
            let before = tenant.drop_after_ns.filter(|_| !unset_drop_after);
            tenant.drop_after_ns = drop_after_ns.or(before);
            tenant.limits = limits.unwrap_or(tenant.limits);
            match rates {
                Some(rates) if rates.is_empty() => tenant.rates.clear(),
                Some(rates) => tenant.rates.extend(rates),
                None => {}
            }
        }
        TenantChange::AddMember(user, role) => {
            user_of(catalog, user)?;
            if let Role::Custom(name) = &role
                && !tenant.roles.contains_key(name)
            {
                return Err(Error::not_found("role", name));
            }
            if tenant.members.insert(user, role).is_none() {
                check_limit("max_users_number", tenant.limits.users, tenant.members.len())?;
            }
        }
        change @ (TenantChange::AddRole(..)
        | TenantChange::DropRole(_)
        | TenantChange::Grant(..)) => change_roles(&mut tenant, change)?,
        TenantChange::RemoveMember(user) => {
            if tenant.members.remove(&user).is_none() {
                let name = user_of(catalog, user)?.name.clone();
                return Err(Error::not_found("member", &name));
            }
        }
    }
    changes.put(Entity::Tenant(tenant));
    Ok(())
}

fn droppable_tenant(catalog: &Catalog, id: TenantId) -> Result<&Tenant> {
    let tenant = tenant_of(catalog, id)?;
    if tenant.name == FIRST_TENANT {
        let message = format!("tenant \"{FIRST_TENANT}\" cannot be dropped");
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    Ok(tenant)
}

fn drop_tenant(catalog: &Catalog, id: TenantId, changes: &mut Changes) -> Result<()> {
    droppable_tenant(catalog, id)?;
    for database in catalog.named_databases(id) {
        remove_database(catalog, database, changes);
    }
    changes.delete(Key::Tenant(id));
    Ok(())
}
