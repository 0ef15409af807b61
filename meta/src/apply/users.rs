//! What concerns users.

use model::{ErrorKind, UserId};

use crate::catalog::{Catalog, Entity, Key, Tenant, User};
use crate::command::{NewUser, UserChange};
use crate::error::{Error, Result};

use super::{Changes, FIRST_USER, check_name};

pub(super) fn create_user(catalog: &Catalog, user: NewUser, changes: &mut Changes) -> Result<()> {
    check_name("user", &user.name)?;
    if catalog.user(&user.name).is_some() {
        return Err(Error::exists("user", &user.name));
    }
    changes.counters.user += 1;
    let id = UserId(changes.counters.user);
    let NewUser { name, verifier, admin, comment, must_change_password, rsa_public_key } = user;
    let user = User { id, name, verifier, admin, comment, must_change_password, rsa_public_key };
    changes.put(Entity::User(user));
    Ok(())
}

pub(super) fn user_of(catalog: &Catalog, id: UserId) -> Result<&User> {
    let user = catalog.user_by_id(id);
    user.map(AsRef::as_ref).ok_or_else(|| Error::not_found("user", &id.to_string()))
}

pub(super) fn alter_user(
    catalog: &Catalog,
    id: UserId,
    change: UserChange,
    changes: &mut Changes,
) -> Result<()> {
    let mut user = user_of(catalog, id)?.clone();
    let is_first = user.name == FIRST_USER;
    match change {
        UserChange::Rename(name) => {
            check_name("user", &name)?;
            if catalog.user(&name).is_some() {
                return Err(Error::exists("user", &name));
            }
            if is_first {
                return Err(protected());
            }
            user.name = name;
        }
        UserChange::Verifier(verifier) => user.verifier = verifier,
        UserChange::Admin(_) if is_first => return Err(protected()),
        UserChange::Admin(admin) => user.admin = admin,
        UserChange::Comment(comment) => user.comment = comment,
        UserChange::MustChangePassword(must) => user.must_change_password = must,
        UserChange::RsaPublicKey(key) => user.rsa_public_key = key,
    }
    changes.put(Entity::User(user));
    Ok(())
}

fn protected() -> Error {
    let message = format!("user \"{FIRST_USER}\" is protected");
    Error::refused(ErrorKind::Conflict, message)
}

pub(super) fn drop_user(catalog: &Catalog, id: UserId, changes: &mut Changes) -> Result<()> {
    if user_of(catalog, id)?.name == FIRST_USER {
        return Err(protected());
    }
    for tenant in catalog.tenants().filter(|tenant| tenant.members.contains_key(&id)) {
        let mut tenant = Tenant::clone(tenant);
        tenant.members.remove(&id);
        changes.put(Entity::Tenant(tenant));
    }
    changes.delete(Key::User(id));
    Ok(())
}
