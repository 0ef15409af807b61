//! Roles of a tenant: made, dropped, given to members, and what is granted to them.

use meta::{Command, GrantChange, GrantObject, Level, Role, TenantChange};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::session::Session;
use crate::sql::{GrantStatement, GrantedOn, Membership};

/// Finds a role of the tenant by name.
pub(crate) fn role_named(tenant: &meta::Tenant, name: &str) -> Result<Role> {
    match name {
        "owner" => Ok(Role::Owner),
        "member" => Ok(Role::Member),
        custom if tenant.roles.contains_key(custom) => Ok(Role::Custom(custom.to_owned())),
        other => {
            let mut known: Vec<&str> = vec!["owner", "member"];
            known.extend(tenant.roles.keys().map(String::as_str));
            let message = format!("role \"{other}\" does not exist");
            Err(Error::new("42704", message).hint(format!("roles are {}", known.join(", "))))
        }
    }
}

impl Session {
    fn own_tenant(&self) -> Result<std::sync::Arc<meta::Tenant>> {
        let catalog = self.database().catalog();
        let tenant = catalog.tenant_by_id(self.identity().tenant).cloned();
        tenant.ok_or_else(|| Error::new("3D000", "the tenant of this session was dropped"))
    }

    /// Makes all changes, or none.
    async fn change_own_tenant(&self, changes: Vec<TenantChange>) -> Result<()> {
        let tenant = self.identity().tenant;
        let commands = changes.into_iter().map(|change| Command::AlterTenant { tenant, change });
        self.submit_all(commands.collect()).await
    }

    pub(crate) async fn create_role(
        &self,
        name: &str,
        if_not_exists: bool,
        inherits: meta::SystemRole,
    ) -> Result<Output> {
        self.check(Need::Govern)?;
        if if_not_exists && self.own_tenant().and_then(|tenant| role_named(&tenant, name)).is_ok() {
            return Ok(self.skip("role", name, "already exists", "CREATE ROLE"));
        }
        self.change_own_tenant(vec![TenantChange::AddRole(name.to_owned(), inherits)]).await?;
        Ok(Output::Done("CREATE ROLE"))
    }

    /// Returns whether the tenant has a role of that name.
    pub(crate) fn has_role(&self, name: &str) -> bool {
        self.own_tenant().is_ok_and(|tenant| tenant.roles.contains_key(name))
    }

    pub(crate) async fn drop_role(&self, name: &str) -> Result<Output> {
        self.check(Need::Govern)?;
        self.change_own_tenant(vec![TenantChange::DropRole(name.to_owned())]).await?;
        Ok(Output::Done("DROP ROLE"))
    }

    /// Runs GRANT or REVOKE of privileges: all names are looked up before the first is changed.
    pub(crate) async fn grant(&self, statement: &GrantStatement) -> Result<Output> {
        self.check(Need::Govern)?;
        let tenant = self.own_tenant()?;
        let mut changes = Vec::new();
        for role in &statement.roles {
            if !tenant.roles.contains_key(role) {
                return Err(self.no_such_role(role));
            }
            for (level, object) in &statement.grants {
                let object = self.granted_on(object)?;
                let change = GrantChange { object, level: *level, revoke: statement.revoke };
                changes.push(TenantChange::Grant(role.clone(), change));
            }
        }
        self.change_own_tenant(changes).await?;
        Ok(Output::Done(if statement.revoke { "REVOKE" } else { "GRANT" }))
    }

    fn no_such_role(&self, name: &str) -> Error {
        let error = Error::new("42704", format!("role \"{name}\" does not exist"));
        match name {
            "owner" | "member" => Error::new("0A000", format!("role \"{name}\" cannot be changed"))
                .hint("make a role that inherits it"),
            _ if self.database().catalog().user(name).is_some() => error
                .hint(format!("\"{name}\" is a user: grant to a role, then GRANT role TO {name}")),
            _ => error.hint(format!("make it first: CREATE ROLE {name}")),
        }
    }

    fn granted_on(&self, object: &GrantedOn) -> Result<GrantObject> {
        Ok(match object {
            GrantedOn::Database(name) => GrantObject::Database(self.user_database(name)?.id),
            GrantedOn::Table(name) => GrantObject::Table(match self.external(name) {
                Some((_, table)) => table.id,
                None => self.user_table(name)?.1.id,
            }),
        })
    }

    /// Runs `GRANT role TO user` and `REVOKE role FROM user`.
    pub(crate) async fn change_membership(&self, membership: &Membership) -> Result<Output> {
        self.check(Need::Govern)?;
        let tenant = self.own_tenant()?;
        let role = role_named(&tenant, &membership.role)?;
        let users = membership.users.iter().map(|name| self.user_id(name));
        let mut changes = Vec::new();
        for user in users.collect::<Result<Vec<_>>>()? {
            changes.push(if membership.revoke {
                if tenant.members.get(&user) != Some(&role) {
                    continue;
                }
                TenantChange::RemoveMember(user)
            } else {
                TenantChange::AddMember(user, role.clone())
            });
        }
        self.change_own_tenant(changes).await?;
        Ok(Output::Done(if membership.revoke { "REVOKE ROLE" } else { "GRANT ROLE" }))
    }
}

/// Returns what information_schema says of grants: database, table, level, role.
pub(crate) fn grants(
    catalog: &meta::Catalog,
    tenant: &meta::Tenant,
) -> Vec<(String, Option<String>, Level, String)> {
    let mut found = Vec::new();
    for (name, role) in &tenant.roles {
        for grant in &role.grants {
            let database = |id| catalog.database_by_id(id).map(|one| one.name.clone());
            let named = match grant.object {
                GrantObject::Database(id) => database(id).map(|name| (name, None)),
                GrantObject::Table(id) => catalog
                    .table_by_id(id)
                    .and_then(|table| Some((database(table.database)?, Some(table.name.clone())))),
            };
            // What was dropped is granted to nobody.
            let Some((database, table)) = named else { continue };
            found.push((database, table, grant.level, name.clone()));
        }
    }
    found
}
