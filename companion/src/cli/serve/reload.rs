//! SIGHUP: the configuration and all files that it names are read again.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use super::flags::Flags;
use super::parts;
use crate::cli::logs::{self, Logs};
use crate::config::Document;
use crate::config::schema::keys;
use crate::config::settings::Settings;
use crate::domain::login::Logins;
use crate::domain::sessions::Sessions;
use crate::service::rights::Gate;
use crate::service::tls::{Tls, TlsFiles};

/// What a reload changes.
pub struct Running {
    pub flags: Flags,
    pub settings: Settings,
    pub logs: Logs,
    pub sessions: Arc<Sessions>,
    pub logins: Arc<Logins>,
    pub edge: (Gate, Option<Arc<Tls>>),
    pub admin: (Gate, Option<Arc<Tls>>),
    pub app: (Gate, Option<Arc<Tls>>),
}

impl Running {
    /// Reloads at each signal, for as long as the process lives.
    pub async fn obey(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            // Reads files, and may wait for a command.
            match tokio::task::block_in_place(|| self.reload()) {
                Ok(waiting) => {
                    self.sessions.metrics().reloads.count("ok");
                    info!("configuration reloaded");
                    for path in waiting {
                        warn!(key = path, "changed, and takes effect after a restart");
                    }
                }
                Err(problem) => {
                    self.sessions.metrics().reloads.count("failed");
                    let problem = format!("{problem:#}");
                    error!(problem, "the new configuration is not used, the old one stays");
                }
            }
        }
    }

    /// All or nothing; answers the keys that wait for a restart.
    fn reload(&mut self) -> anyhow::Result<Vec<&'static str>> {
        let (document, waiting) = merge(&self.settings.document, &self.flags.read()?.document)?;
        // Judged as what will be in force: new rights at the old addresses.
        let settings = Settings::new(document)?;
        let keys = parts::keys(&settings, self.logins.fetched().map(|it| (&self.settings, it)))?;
        let edge_rights = parts::edge_rights(&settings);
        let admin_rights = parts::admin_rights(&settings)?;
        let app_rights = parts::app_rights(&settings)?;
        let filter = logs::filter(&settings.document.log)?;
        let app_files = settings.app.as_ref().and_then(|app| app.tls.clone());
        let sides = [
            (&self.edge.1, &settings.edge.tls),
            (&self.admin.1, &settings.admin.tls),
            (&self.app.1, &app_files),
        ];
        for (running, files) in sides {
            try_out(running.as_deref(), files.as_ref())?;
        }
        for (running, files) in sides {
            if let (Some(tls), Some(files)) = (running, files) {
                tls.reload(files.clone())?;
            }
        }
        if let Some(fetched) = &keys.fetched {
            fetched.start();
        }
        self.logins.reload(keys, settings.policy.clone());
        self.edge.0.reload(edge_rights);
        self.admin.0.reload(admin_rights);
        self.app.0.reload(app_rights);
        self.sessions.set_push_limits(settings.pushes);
        self.sessions.set_group_limits(settings.groups);
        self.logs.change(filter)?;
        self.settings = settings;
        Ok(waiting)
    }
}

fn try_out(running: Option<&Tls>, files: Option<&TlsFiles>) -> anyhow::Result<()> {
    match (running, files) {
        (Some(_), Some(files)) => drop(Tls::load(files.clone())?),
        (None, None) => {}
        _ => bail!("TLS cannot be switched on or off while running: restart"),
    }
    Ok(())
}

/// The new document, but for keys that only a restart changes; and which of those differ.
fn merge(old: &Document, new: &Document) -> anyhow::Result<(Document, Vec<&'static str>)> {
    let old = serde_json::to_value(old).context("the old configuration")?;
    let mut merged = serde_json::to_value(new).context("the new configuration")?;
    let mut waiting = Vec::new();
    for key in keys().iter().filter(|key| !key.reload) {
        let pointer = format!("/{}", key.path.replace('.', "/"));
        let before = old.pointer(&pointer).cloned().unwrap_or(Value::Null);
        if let Some(value) = merged.pointer_mut(&pointer)
            && *value != before
        {
            *value = before;
            waiting.push(key.path.as_str());
        }
    }
    Ok((serde_json::from_value(merged).context("the merged configuration")?, waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_is_named() {
        let old = Document::default();
        let mut new = Document::default();
        new.edge.listen = "127.0.0.1:9".into();
        new.login.audiences = vec!["a".into()];
        new.admin.listen = Some("127.0.0.1:8".into());
        let (merged, waiting) = merge(&old, &new).unwrap();
        assert_eq!(waiting, ["admin.listen", "edge.listen"]);
        assert_eq!(merged.edge.listen, old.edge.listen);
        assert_eq!(merged.admin.listen, None);
        assert_eq!(merged.login.audiences, ["a"]);
    }
}
