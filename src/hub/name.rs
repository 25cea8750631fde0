//! What a model is called: `ORG/NAME`, a revision of it, or a short name.
//!
//! Invariant: a [`Name`] can be made part of a path and of an address: no part of it leads out of a
//! folder.

use std::fmt;

use super::alias;
use super::error::{HubError, Result};
use crate::checkpoint::files::is_plain;

/// The revision where none is given.
pub const MAIN: &str = "main";

/// A repository, and which state of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// `ORG/NAME`.
    repo: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl Name {
    /// Reads `ORG/NAME`, `ORG/NAME@REVISION` or a short name, which may have a revision too.
    ///
    /// # Errors
    /// What keeps it from being a name.
    pub fn parse(text: &str) -> Result<Name> {
        let wrong = |why: &str| HubError::Name {
            name: text.to_owned(),
            why: why.to_owned(),
        };
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, revision),
            None => (text, MAIN),
        };
        let repo = match alias::find(repo) {
            Some(alias) => alias.repo,
            None => repo,
        };
        let Some((org, model)) = repo.split_once('/') else {
            let mut why = "it has no organization and is not a short name".to_owned();
            let near: Vec<&str> = alias::near(repo).map(|alias| alias.name).collect();
            if !near.is_empty() {
                why += &format!(" (there is {})", near.join(", "));
            }
            return Err(wrong(&why));
        };
        for part in [org, model] {
            check_part(part).map_err(wrong)?;
        }
        if repo.len() > 96 {
            return Err(wrong("it is longer than 96 characters"));
        }
        if revision.is_empty() {
            return Err(wrong("there is no revision after the @"));
        }
        let odd = |c: char| c.is_control() || " ~^:?*[\\%#&".contains(c);
        if revision.contains(odd) || !revision.split('/').all(is_plain) {
            return Err(wrong("the revision is not a branch, a tag or a commit"));
        }
        Ok(Name {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// `ORG/NAME`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The branch, tag or commit; `main` if none was given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The commit, if the revision is one.
    pub fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(self.revision.as_str())
    }
}

/// As it is typed, without the revision that is taken anyway.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        match self.revision.as_str() {
            MAIN => Ok(()),
            revision => write!(f, "@{revision}"),
        }
    }
}

/// Whether `text` is a whole commit hash.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The rules that hubs have for both parts of a repository's name.
fn check_part(part: &str) -> std::result::Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if part.is_empty() {
        Err("a part of it is empty")
    } else if !part.bytes().all(allowed) {
        Err("it may have only letters, digits, `.`, `_` and `-`, and one `/`")
    } else if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) {
        Err("no part of it may begin or end with `.` or `-`")
    } else if part.contains("--") || part.contains("..") {
        Err("it may not contain `--` or `..`")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (text, repo, revision, shown) in [
            ("a/b", "a/b", "main", "a/b"),
            ("a/b@main", "a/b", "main", "a/b"),
            (
                "Org-1/My_Model.v2@v1.0",
                "Org-1/My_Model.v2",
                "v1.0",
                "Org-1/My_Model.v2@v1.0",
            ),
            ("a/b@refs/pr/7", "a/b", "refs/pr/7", "a/b@refs/pr/7"),
            (
                "qwen3:4b",
                "mlx-community/Qwen3-4B-4bit",
                "main",
                "mlx-community/Qwen3-4B-4bit",
            ),
            (
                "qwen3:4b@dev",
                "mlx-community/Qwen3-4B-4bit",
                "dev",
                "mlx-community/Qwen3-4B-4bit@dev",
            ),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!((name.repo(), name.revision()), (repo, revision));
            assert_eq!(name.to_string(), shown);
            assert_eq!(Name::parse(shown).unwrap(), name);
        }
    }

    #[test]
    fn what_could_leave_a_folder_is_no_name() {
        for text in [
            "", "a", "/", "a/", "/b", "a/b/c", "../b", "a/..", "./b", "a/.b", "a--x/b", "a/b--c",
            "a b/c", "a/b@", "a/b@..", "a/b@../x", "a/b@/x", "a/b@x//y", "a/b@x\\y", "a/b@x y",
            "a/b@x\0", "a/b\n", "ä/b",
        ] {
            assert!(Name::parse(text).is_err(), "{text:?}");
        }
        assert!(Name::parse(&format!("a/{}", "b".repeat(94))).is_ok());
        assert!(Name::parse(&format!("a/{}", "b".repeat(95))).is_err());
    }

    #[test]
    fn a_commit_is_forty_hexadecimal_digits() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let name = Name::parse(&format!("a/b@{commit}")).unwrap();
        assert_eq!(name.commit(), Some(commit));
        assert_eq!(Name::parse("a/b").unwrap().commit(), None);
        assert!(!is_commit(&commit.to_uppercase()));
        assert!(!is_commit(&commit[1..]));
    }
}
