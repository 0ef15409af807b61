//! Tenants: made, changed, dropped at once or after a while, brought back.

use meta::{Command, ObjectLimits, Rates, TenantChange};

use super::{missing, not_dropped};
use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::roles::role_named;
use crate::session::Session;
use crate::sql::{Definition, TenantAction, TenantOptions};

impl Session {
    pub(super) async fn define_tenant(&self, definition: &Definition) -> Result<Output> {
        match definition {
            Definition::CreateTenant { name, if_not_exists, options } => {
                self.check(Need::Administer)?;
                if *if_not_exists && self.database().catalog().tenant(name).is_some() {
                    return Ok(self.skip("tenant", name, "already exists", "CREATE TENANT"));
                }
                let create = Command::CreateTenant {
                    name: name.clone(),
                    comment: options.comment.clone().unwrap_or_default(),
                    drop_after_ns: options.drop_after,
                    limits: options.limits.unwrap_or_default(),
                    rates: options.rates.clone().unwrap_or_default(),
                };
                self.submit(create, "CREATE TENANT").await
            }
            Definition::AlterTenant { name, action } => self.alter_tenant(name, action).await,
            Definition::DropTenant { name, if_exists, after } => {
                self.drop_tenant(name, *if_exists, *after).await
            }
            Definition::RecoverTenant { name, if_exists } => {
                self.recover_tenant(name, *if_exists).await
            }
            _ => Err(Error::internal("a tenant was expected")),
        }
    }

    async fn alter_tenant(&self, name: &str, action: &TenantAction) -> Result<Output> {
        let catalog = self.database().catalog();
        let own = catalog.tenant(name).filter(|tenant| tenant.id == self.identity().tenant);
        // An owner changes its own tenant, an administrator any; limits are set to it, not by it.
        let by_owner = match action {
            TenantAction::Set(options) => {
                options.limits.is_none() && options.rates.is_none() && options.drop_after.is_none()
            }
            TenantAction::UnsetLimits | TenantAction::UnsetDropAfter => false,
            TenantAction::AddUser(..) | TenantAction::RemoveUser(_) => true,
        };
        self.check(if own.is_some() && by_owner { Need::Govern } else { Need::Administer })?;
        let tenant = catalog.tenant(name).ok_or_else(|| missing("tenant", name))?;
        let options = |options: TenantOptions, unset_drop_after| TenantChange::Options {
            comment: options.comment,
            drop_after_ns: options.drop_after,
            unset_drop_after,
            limits: options.limits,
            rates: options.rates,
        };
        let change = match action {
            TenantAction::Set(set) => options(set.clone(), false),
            TenantAction::UnsetLimits => {
                let limits = Some(ObjectLimits::default());
                let rates = Some(Rates::new());
                options(TenantOptions { limits, rates, ..TenantOptions::default() }, false)
            }
            TenantAction::UnsetDropAfter => options(TenantOptions::default(), true),
            TenantAction::AddUser(user, role) => {
                TenantChange::AddMember(self.user_id(user)?, role_named(tenant, role)?)
            }
            TenantAction::RemoveUser(user) => TenantChange::RemoveMember(self.user_id(user)?),
        };
        let tenant = tenant.id;
        self.submit(Command::AlterTenant { tenant, change }, "ALTER TENANT").await
    }

    async fn drop_tenant(&self, name: &str, if_exists: bool, after: Option<i64>) -> Result<Output> {
        self.check(Need::Administer)?;
        match self.database().catalog().tenant(name) {
            Some(tenant) => {
                let (tenant, after) = (tenant.id, after.or(tenant.drop_after_ns));
                let command = match after {
                    None => Command::DropTenant { tenant },
                    Some(after) => {
                        let drop_at = self.now_ns().saturating_add(after);
                        Command::HideTenant { tenant, drop_at }
                    }
                };
                self.submit(command, "DROP TENANT").await
            }
            None if if_exists => Ok(self.skip("tenant", name, "does not exist", "DROP TENANT")),
            None => Err(missing("tenant", name)),
        }
    }

    async fn recover_tenant(&self, name: &str, if_exists: bool) -> Result<Output> {
        self.check(Need::Administer)?;
        let catalog = self.database().catalog();
        match catalog.named_tenant(name).filter(|one| one.drop_at.is_some()) {
            Some(tenant) => {
                let recover = Command::RecoverTenant { tenant: tenant.id };
                self.submit(recover, "RECOVER TENANT").await
            }
            None if if_exists => Ok(self.skip("tenant", name, "is not dropped", "RECOVER TENANT")),
            None => Err(not_dropped("tenant", "3D000", name)),
        }
    }
}
