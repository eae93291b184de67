//! nginx's files as one tree: includes are replaced by what they name, from the disk or from what `nginx -T` printed.

use super::syntax::{Directive, parse};
use crate::check::report::Place;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that include each other; two are usual.
const DEPTH: usize = 16;
/// What `nginx -T` prints above each file.
const HEADER: &str = "# configuration file ";

/// The whole configuration of one nginx.
#[derive(Debug)]
pub(in crate::check) struct Tree {
    /// The file that was named, or `-`.
    pub(in crate::check) name: PathBuf,
    pub(in crate::check) directives: Vec<Directive>,
}

/// Something in a tree that nginx itself would refuse.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::check) struct TreeError {
    pub(in crate::check) place: Place,
    pub(in crate::check) what: String,
}

impl Tree {
    /// The tree below `name`: `text` is that file, or all files as `nginx -T` prints them.
    pub(in crate::check) fn of(name: &Path, text: &str) -> Result<Self, TreeError> {
        let printed = printed_files(text);
        let (main, files) = match printed.first() {
            Some((main, _)) => (main.clone(), Files::Printed(printed.into_iter().collect())),
            None => (name.to_owned(), Files::OnDisk),
        };
        let folder = main.parent().unwrap_or(Path::new("")).to_owned();
        let text = match &files {
            Files::Printed(files) => files.get(&main).map_or("", String::as_str),
            Files::OnDisk => text,
        };
        let directives = Reader { folder, files: &files }.file(&main, text, 0)?;
        Ok(Self { name: name.to_owned(), directives })
    }
}

/// The files of `nginx -T`, the main one first; none if the text is something else.
fn printed_files(text: &str) -> Vec<(PathBuf, String)> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for line in text.lines() {
        let header = line.strip_prefix(HEADER).and_then(|rest| rest.strip_suffix(':')).filter(|path| path.starts_with('/'));
        match (header, files.last_mut()) {
            (Some(path), _) => files.push((path.into(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            // What comes before the first one is nginx's own words.
            (None, None) => {}
        }
    }
    files
}

enum Files {
    OnDisk,
    Printed(BTreeMap<PathBuf, String>),
}

struct Reader<'a> {
    /// nginx looks for relative paths beside its main file, wherever they are written.
    folder: PathBuf,
    files: &'a Files,
}

impl Reader<'_> {
    fn file(&self, path: &Path, text: &str, depth: usize) -> Result<Vec<Directive>, TreeError> {
        let directives = parse(path, text).map_err(|error| TreeError { place: error.place, what: error.what.to_owned() })?;
        self.include(directives, depth)
    }

    fn include(&self, directives: Vec<Directive>, depth: usize) -> Result<Vec<Directive>, TreeError> {
        let mut whole = Vec::new();
        for mut directive in directives {
            if directive.name != "include" || directive.args.len() != 1 {
                if let Some(block) = directive.block.take() {
                    directive.block = Some(self.include(block, depth)?);
                }
                whole.push(directive);
                continue;
            }
            let failed = |what: String| TreeError { place: directive.place.clone(), what };
            if depth == DEPTH {
                return Err(failed("files include each other without an end".to_owned()));
            }
            let pattern = self.folder.join(directive.arg(0));
            let found = self.matching(&pattern).map_err(|error| failed(format!("{}: {error}", pattern.display())))?;
            for (path, text) in found {
                whole.extend(self.file(&path, &text, depth + 1)?);
            }
        }
        Ok(whole)
    }

    /// The files that a path names, in their order; without wildcards it must be there.
    fn matching(&self, pattern: &Path) -> io::Result<Vec<(PathBuf, String)>> {
        let name = pattern.to_string_lossy();
        let is_pattern = name.contains(['*', '?']);
        match self.files {
            Files::Printed(files) => {
                let matching = files.iter().filter(|(path, _)| matches(&name, &path.to_string_lossy()));
                let found: Vec<_> = matching.map(|(path, text)| (path.clone(), text.clone())).collect();
                if found.is_empty() && !is_pattern { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
            }
            Files::OnDisk if !is_pattern => Ok(vec![(pattern.to_owned(), fs::read_to_string(pattern)?)]),
            Files::OnDisk => {
                let entries = fs::read_dir(pattern.parent().unwrap_or(Path::new("."))).into_iter().flatten().flatten();
                let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
                paths.sort();
                let matching = paths.into_iter().filter(|path| path.is_file() && matches(&name, &path.to_string_lossy()));
                matching.map(|path| Ok((path.clone(), fs::read_to_string(path)?))).collect()
            }
        }
    }
}

/// Whether a path matches a pattern of `*` and `?`, neither of which crosses a slash or finds a hidden file.
fn matches(pattern: &str, path: &str) -> bool {
    fn rest(pattern: &[char], path: &[char]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (['*', after @ ..], _) => rest(after, path) || matches!(path, [c, tail @ ..] if *c != '/' && rest(pattern, tail)),
            (['?', after @ ..], [c, tail @ ..]) => *c != '/' && rest(after, tail),
            ([p, after @ ..], [c, tail @ ..]) => p == c && rest(after, tail),
            _ => false,
        }
    }
    let is_hidden = path.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    (!is_hidden || pattern == path) && rest(&chars(pattern), &chars(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nginx_prints_is_read_file_by_file() {
        let text = "nginx: configuration file /etc/nginx/nginx.conf test is successful\n\
                    # configuration file /etc/nginx/nginx.conf:\nhttp {\n  include conf.d/*.conf;\n}\n\n\
                    # configuration file /etc/nginx/conf.d/b.conf:\n# b\nserver { listen 2; }\n\
                    # configuration file /etc/nginx/conf.d/a.conf:\nserver { listen 1; }\n";
        let tree = Tree::of(Path::new("-"), text).expect("read");
        let servers: Vec<_> =
            tree.directives[0].inside().iter().map(|server| (server.inside()[0].text(), &server.place)).collect();
        assert_eq!((servers[0].0.as_str(), servers[1].0.as_str()), ("listen 1", "listen 2"), "in the order of a glob");
        assert_eq!((&*servers[1].1.file, servers[1].1.line), (Path::new("/etc/nginx/conf.d/b.conf"), 2));
    }

    #[test]
    fn a_file_that_is_not_there_or_includes_itself_is_an_error() {
        let text = "# configuration file /n.conf:\ninclude nowhere.conf;\n";
        let error = Tree::of(Path::new("-"), text).expect_err("refused");
        assert_eq!((error.place.line, error.what.as_str()), (1, "/nowhere.conf: entity not found"));
        let text = "# configuration file /n.conf:\ninclude n.conf;\n";
        let error = Tree::of(Path::new("-"), text).expect_err("refused");
        assert_eq!(error.what, "files include each other without an end");
    }

    #[test]
    fn a_star_stays_in_its_folder() {
        for (pattern, path, is_match) in [
            ("/a/*.conf", "/a/b.conf", true),
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/*", "/a/.b", false),
            ("/a/?.conf", "/a/b.conf", true),
            ("/a/?.conf", "/a/bc.conf", false),
            ("/a/b", "/a/b", true),
        ] {
            assert_eq!(matches(pattern, path), is_match, "{pattern} {path}");
        }
    }
}
