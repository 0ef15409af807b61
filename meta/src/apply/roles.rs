//! What concerns a tenant's members, its roles and what these may do.

use model::ErrorKind;

use crate::catalog::{
    Catalog, CustomRole, Entity, Grant, GrantObject, Level, Role, SystemRole, Tenant,
};
use crate::command::{GrantChange, TenantChange};
use crate::error::{Error, Result};

use super::{Changes, check_name};

/// The most roles of a tenant, and the most grants of a role.
const ROLES_MAX: usize = 1_000;
const GRANTS_MAX: usize = 10_000;

/// Changes roles and grants of a tenant; other changes leave it as it is.
pub(super) fn change_roles(tenant: &mut Tenant, change: TenantChange) -> Result<()> {
    match change {
        TenantChange::AddRole(name, inherits) => add_role(tenant, name, inherits),
        TenantChange::DropRole(name) => drop_role(tenant, &name),
        TenantChange::Grant(name, grant) => {
            let grants = &mut role_of(tenant, &name)?.grants;
            change_grant(grants, grant)
        }
        TenantChange::Comment(_)
        | TenantChange::Options { .. }
        | TenantChange::AddMember(..)
        | TenantChange::RemoveMember(_) => Ok(()),
    }
}

fn add_role(tenant: &mut Tenant, name: String, inherits: SystemRole) -> Result<()> {
    check_name("role", &name)?;
    let system = ["owner", "member"].contains(&name.as_str());
    if system || tenant.roles.contains_key(&name) {
        return Err(Error::exists("role", &name));
    }
    if tenant.roles.len() >= ROLES_MAX {
        let message = format!("tenant \"{}\" has {ROLES_MAX} roles", tenant.name);
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    tenant.roles.insert(name, CustomRole { inherits, grants: Vec::new() });
    Ok(())
}

fn drop_role(tenant: &mut Tenant, name: &str) -> Result<()> {
    role_of(tenant, name)?;
    let is_it = |role: &&Role| matches!(role, Role::Custom(other) if other == name);
    let members = tenant.members.values().filter(is_it).count();
    if members > 0 {
        let message = format!("role \"{name}\" cannot be dropped: {members} members have it");
        return Err(Error::refused(ErrorKind::Conflict, message));
    }
    tenant.roles.remove(name);
    Ok(())
}

fn role_of<'a>(tenant: &'a mut Tenant, name: &str) -> Result<&'a mut CustomRole> {
    tenant.roles.get_mut(name).ok_or_else(|| Error::not_found("role", name))
}

/// Takes what was granted on an object that is no more.
pub(super) fn forget_object(catalog: &Catalog, object: GrantObject, changes: &mut Changes) {
    let granted = |role: &CustomRole| role.grants.iter().any(|grant| grant.object == object);
    for tenant in catalog.tenants().filter(|tenant| tenant.roles.values().any(granted)) {
        let mut tenant = Tenant::clone(tenant);
        for role in tenant.roles.values_mut() {
            role.grants.retain(|grant| grant.object != object);
        }
        changes.put(Entity::Tenant(tenant));
    }
}

/// Sets what a role may do with an object. To grant raises it, to revoke lowers it below the level.
fn change_grant(grants: &mut Vec<Grant>, change: GrantChange) -> Result<()> {
    let GrantChange { object, level, revoke } = change;
    let at = grants.iter().position(|grant| grant.object == object);
    let had = at.map(|at| grants[at].level);
    let has = if revoke {
        match level {
            Level::Read => None,
            Level::Write => had.map(|had| had.min(Level::Read)),
            // ALL is all of them.
            Level::All => None,
        }
    } else {
        Some(had.map_or(level, |had| had.max(level)))
    };
    match (at, has) {
        (Some(at), Some(level)) => grants[at].level = level,
        (Some(at), None) => drop(grants.remove(at)),
        (None, Some(_)) if grants.len() >= GRANTS_MAX => {
            let message = format!("a role has {GRANTS_MAX} grants");
            return Err(Error::refused(ErrorKind::LimitReached, message));
        }
        (None, Some(level)) => grants.push(Grant { object, level }),
        (None, None) => {}
    }
    Ok(())
}
