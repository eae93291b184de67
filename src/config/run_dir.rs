//! The folder of the unix socket: the one that is set, or the first that works, also without root.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// `run_dir` is set and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("run_dir: cannot make {}", path.display())]
pub struct RunDirError {
    path: PathBuf,
    source: io::Error,
}

/// Makes the folder if it is not there; `None` when none is set and no default works.
///
/// # Errors
/// A folder is set and cannot be made.
pub(super) fn prepare(set: &Path) -> Result<Option<PathBuf>, RunDirError> {
    if set.as_os_str().is_empty() {
        return Ok(first_that_works(|name| std::env::var_os(name).map(PathBuf::from), Path::new("/run")));
    }
    match fs::create_dir_all(set) {
        Ok(()) => Ok(Some(set.to_owned())),
        Err(source) => Err(RunDirError { path: set.to_owned(), source }),
    }
}

fn first_that_works(variable: impl Fn(&str) -> Option<PathBuf>, run: &Path) -> Option<PathBuf> {
    // systemd separates several by colons.
    let from_systemd = variable("RUNTIME_DIRECTORY").and_then(|folders| {
        let first = folders.to_str()?.split(':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(first))
    });
    let from_login = variable("XDG_RUNTIME_DIR").map(|folder| folder.join("stickyport"));
    let kept = from_systemd.into_iter().chain([run.join("stickyport")]).chain(from_login);
    kept.into_iter().find(|folder| is_writable(folder)).or_else(|| {
        let user = fs::metadata("/proc/self").ok()?.uid();
        let folder = std::env::temp_dir().join(format!("stickyport-{user}"));
        is_private(&folder, user).then_some(folder)
    })
}

/// Whether files can be made there, after making the folder.
fn is_writable(folder: &Path) -> bool {
    // One whose parent is missing, such as a login that has ended, is not made up.
    let _ = fs::create_dir(folder);
    let probe = folder.join(format!(".{}", std::process::id()));
    fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).is_ok()
}

/// Whether the folder is the user's own and closed to others, as it must be where anyone could have made it first.
fn is_private(folder: &Path, user: u32) -> bool {
    let _ = DirBuilder::new().mode(0o700).create(folder);
    let found = fs::symlink_metadata(folder);
    found.is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_that_is_set_is_made() {
        let scratch = Scratch::new("set");
        let folder = scratch.0.join("a/b");
        assert_eq!(prepare(&folder).expect("made"), Some(folder.clone()));
        assert!(folder.is_dir());
        let error = prepare(Path::new("/proc/stickyport")).expect_err("nobody makes folders there");
        assert_eq!(error.to_string(), "run_dir: cannot make /proc/stickyport");
    }

    #[test]
    fn systemd_comes_first_then_run_then_the_login() {
        let scratch = Scratch::new("order");
        for name in ["systemd", "run", "login"] {
            fs::create_dir(scratch.0.join(name)).expect("made");
        }
        let variables = |name: &str| match name {
            "RUNTIME_DIRECTORY" => Some(PathBuf::from(format!("{}:/elsewhere", scratch.0.join("systemd").display()))),
            _ => Some(scratch.0.join("login")),
        };
        let run = scratch.0.join("run");
        assert_eq!(first_that_works(variables, &run), Some(scratch.0.join("systemd")));
        assert_eq!(first_that_works(|_| None, &run), Some(run.join("stickyport")));
        let login = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| scratch.0.join("login"));
        assert_eq!(first_that_works(login, &scratch.0.join("missing")), Some(scratch.0.join("login/stickyport")));
    }

    #[test]
    fn a_shared_folder_must_be_the_users_own() {
        let scratch = Scratch::new("private");
        let user = fs::metadata("/proc/self").expect("there").uid();
        let folder = scratch.0.join("mine");
        assert!(is_private(&folder, user));
        assert!(!is_private(&folder, user + 1), "somebody else's");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("opened");
        assert!(!is_private(&folder, user), "open to all");
        let link = scratch.0.join("link");
        std::os::unix::fs::symlink(&scratch.0, &link).expect("linked");
        assert!(!is_private(&link, user), "a link");
    }

    /// A folder of one test's own.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stickyport-run-dir-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("made");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
