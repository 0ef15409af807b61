//! Who may do what: the only place that decides. Front ends and statements ask, none compares roles.

use meta::{Catalog, Role, User};
use model::{TenantId, UserId};

use crate::error::{Error, Result};

/// Who asks, and in which tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    pub(crate) tenant: TenantId,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To change users and tenants.
    Administer,
    /// To change databases and tables of the tenant, and its members.
    Define,
    /// To read rows of the tenant.
    Read,
    /// To write rows of the tenant.
    Write,
    /// To see what there is in the tenant.
    See,
}

/// Refuses what the identity may not do. The catalog is the newest, so that a change reaches open
/// sessions with their next statement.
pub(crate) fn check(catalog: &Catalog, who: Identity, need: Need) -> Result<()> {
    let Some(user) = catalog.user_by_id(who.user) else {
        return Err(Error::new("28000", "the user of this session was dropped"));
    };
    if user.admin {
        return Ok(());
    }
    let role = catalog.tenant_by_id(who.tenant).and_then(|tenant| tenant.members.get(&who.user));
    let allowed = match (role, need) {
        (_, Need::Administer) | (None, _) => false,
        (Some(Role::Owner), _) => true,
        (Some(Role::Member), need) => need == Need::See,
    };
    if allowed {
        Ok(())
    } else {
        Err(Error::new("42501", format!("permission denied to {}", need.verb())))
    }
}

/// Returns whether a user may enter a tenant at all.
pub(crate) fn may_enter(user: &User, tenant: &meta::Tenant) -> bool {
    user.admin || tenant.members.contains_key(&user.id)
}

impl Need {
    fn verb(self) -> &'static str {
        match self {
            Self::Administer => "administer users and tenants",
            Self::Define => "change databases and tables",
            Self::Read => "read tables",
            Self::Write => "write tables",
            Self::See => "see this tenant",
        }
    }
}
