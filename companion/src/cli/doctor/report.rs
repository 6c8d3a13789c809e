//! What was found, as a table or as JSON.

use std::process::ExitCode;

use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    Warn,
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// Which check this is, one word.
    pub check: &'static str,
    /// What it is about: a listener, a cluster, a manifest.
    pub subject: String,
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    pub fn remedy(&mut self, remedy: &str) {
        self.remedy = Some(remedy.to_owned());
    }
}

#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub fn ok(&mut self, check: &'static str, subject: &str, what: &str) {
        self.add(Level::Ok, check, subject, what);
    }

    pub fn warn(&mut self, check: &'static str, subject: &str, what: &str) -> &mut Finding {
        self.add(Level::Warn, check, subject, what)
    }

    pub fn error(&mut self, check: &'static str, subject: &str, what: &str) -> &mut Finding {
        self.add(Level::Error, check, subject, what)
    }

    fn add(
        &mut self,
        level: Level,
        check: &'static str,
        subject: &str,
        what: &str,
    ) -> &mut Finding {
        let (subject, what) = (subject.to_owned(), what.to_owned());
        self.findings.push_mut(Finding { level, check, subject, what, remedy: None })
    }

    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    pub fn exit_code(&self) -> ExitCode {
        match self.findings.iter().map(|finding| finding.level).max() {
            Some(Level::Ok) => ExitCode::SUCCESS,
            Some(Level::Warn) => ExitCode::from(1),
            Some(Level::Error) | None => ExitCode::from(2),
        }
    }

    pub fn print(&self, json: bool) {
        if json {
            let text = serde_json::to_string_pretty(&self.findings).unwrap_or_default();
            println!("{text}");
            return;
        }
        print!("{}", self.table());
    }

    fn table(&self) -> String {
        let width = |of: fn(&Finding) -> usize| self.findings.iter().map(of).max().unwrap_or(0);
        let check = width(|finding| finding.check.len());
        let subject = width(|finding| finding.subject.chars().count()).min(48);
        let mut table = String::new();
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warn => "WARN",
                Level::Error => "ERROR",
            };
            let line = format!(
                "{level:<5}  {:<check$}  {:<subject$}  {}",
                finding.check, finding.subject, finding.what
            );
            table.push_str(line.trim_end());
            table.push('\n');
            if let Some(remedy) = &finding.remedy {
                table.push_str(&format!("       -> {remedy}\n"));
            }
        }
        let (ok, warn, error) = (Level::Ok, Level::Warn, Level::Error);
        let (ok, warn, error) = (self.count(ok), self.count(warn), self.count(error));
        table.push_str(&format!("{ok} ok, {warn} warnings, {error} errors\n"));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let mut report = Report::default();
        assert_eq!(report.exit_code(), ExitCode::from(2), "nothing was looked at");
        report.ok("plugin", "a", "is there");
        assert_eq!(report.exit_code(), ExitCode::SUCCESS);
        report.warn("buffer", "a", "is large");
        assert_eq!(report.exit_code(), ExitCode::from(1));
        report.error("guard", "a", "is open").remedy("close it");
        assert_eq!(report.exit_code(), ExitCode::from(2));
    }

    #[test]
    fn a_remedy_stands_below_its_finding() {
        let mut report = Report::default();
        report.ok("plugin", "private", "is there");
        report.error("guard", "raw", "is open").remedy("close it");
        let expected = "ok     plugin  private  is there\n\
                        ERROR  guard   raw      is open\n       -> close it\n\
                        1 ok, 0 warnings, 1 errors\n";
        assert_eq!(report.table(), expected);
    }
}
