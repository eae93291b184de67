//! What the directives mean for a request: which location takes it, which values hold there, and where it is sent.

use super::syntax::Directive;
use super::tree::Tree;
use crate::check::report::Place;
use regex::Regex;
use std::collections::BTreeSet;

/// Maps that lead to maps; two are usual.
const DEPTH: usize = 8;
/// A node that no fleet has.
const NOBODY: u32 = 100_000;

/// A block and those around it.
#[derive(Debug, Clone)]
pub(in crate::check) struct Scope<'a> {
    /// The outermost first.
    levels: Vec<&'a [Directive]>,
    /// Where the block begins.
    pub(in crate::check) place: Place,
}

impl<'a> Scope<'a> {
    fn inner(&self, block: &'a Directive) -> Self {
        let levels = self.levels.iter().copied().chain([block.inside()]).collect();
        Self { levels, place: block.place.clone() }
    }

    /// The directive that holds here: the innermost one.
    pub(in crate::check) fn one(&self, name: &str) -> Option<&'a Directive> {
        self.levels.iter().rev().find_map(|level| level.iter().rev().find(|directive| directive.name == name))
    }

    /// The directives that hold here of a kind that may occur several times: those of the innermost block that has any.
    pub(in crate::check) fn all(&self, name: &str) -> Vec<&'a Directive> {
        let of = |level: &&'a [Directive]| level.iter().filter(|directive| directive.name == name).collect::<Vec<_>>();
        self.levels.iter().rev().map(of).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Those of this block alone.
    pub(in crate::check) fn own(&self, name: &str) -> impl Iterator<Item = &'a Directive> {
        let own = self.levels.last().copied().unwrap_or_default();
        own.iter().filter(move |directive| directive.name == name)
    }
}

/// `upstream name { … }`
#[derive(Debug, Clone)]
pub(in crate::check) struct Upstream<'a> {
    pub(in crate::check) name: &'a str,
    pub(in crate::check) block: Scope<'a>,
}

impl<'a> Upstream<'a> {
    /// Its servers in their order.
    pub(in crate::check) fn servers(&self) -> Vec<&'a Directive> {
        self.block.own("server").collect()
    }

    /// Its servers that are not `down`.
    pub(in crate::check) fn live(&self) -> Vec<&'a Directive> {
        self.servers().into_iter().filter(|server| !is_down(server)).collect()
    }

    /// A directive of its own block.
    pub(in crate::check) fn own(&self, name: &str) -> Option<&'a Directive> {
        self.block.own(name).last()
    }
}

pub(in crate::check) fn is_down(server: &Directive) -> bool {
    server.args.iter().any(|arg| arg == "down")
}

/// A server that takes clients of ours.
#[derive(Debug)]
pub(in crate::check) struct Site<'a> {
    pub(in crate::check) server: Scope<'a>,
    /// The location that takes Engine.IO's requests.
    pub(in crate::check) engine: Scope<'a>,
    pub(in crate::check) pass: &'a Directive,
    pub(in crate::check) route: Route<'a>,
}

/// Where a site sends requests, by the sid that they bring; a target is an upstream or an address.
#[derive(Debug)]
pub(in crate::check) struct Route<'a> {
    /// Where a client without a session goes; `None` when that hangs on what is not known here.
    pub(in crate::check) pool: Option<String>,
    /// The nodes whose sessions have a place of their own, and that place.
    pub(in crate::check) owners: Vec<(u32, String)>,
    /// Where the sessions of a node go that no map names.
    pub(in crate::check) nobody: Option<String>,
    /// The maps that all of this depends on.
    pub(in crate::check) maps: Vec<&'a Directive>,
}

/// Everything inside `http { }`.
#[derive(Debug)]
pub(in crate::check) struct Http<'a> {
    pub(in crate::check) main: Scope<'a>,
    pub(in crate::check) upstreams: Vec<Upstream<'a>>,
    pub(in crate::check) sites: Vec<Site<'a>>,
    pub(in crate::check) log_formats: Vec<&'a Directive>,
    maps: Vec<Map<'a>>,
}

/// `map $source $target { … }`, its expressions read.
#[derive(Debug)]
struct Map<'a> {
    directive: &'a Directive,
    /// For each entry whose key is an expression: that, unless it cannot be read here.
    expressions: Vec<(Option<Regex>, &'a str)>,
}

impl<'a> Map<'a> {
    fn of(directive: &'a Directive) -> Self {
        let expression = |entry: &'a Directive| {
            let text = entry.name.strip_prefix('~')?;
            let text = text.strip_prefix('*').map_or_else(|| text.to_owned(), |rest| format!("(?i){rest}"));
            Some((Regex::new(&text).ok(), entry.arg(0)))
        };
        Self { directive, expressions: directive.inside().iter().filter_map(expression).collect() }
    }

    /// Its answer: that of an exact key, else of the first expression, else the default; `None` when an expression cannot be read here.
    fn of_source(&self, source: &str) -> Option<&'a str> {
        let entries = || self.directive.inside().iter().filter(|entry| entry.args.len() == 1);
        let is_exact = |entry: &&Directive| {
            let key = entry.name.trim_start_matches('\\');
            !entry.name.starts_with('~') && entry.name != "default" && key.eq_ignore_ascii_case(source)
        };
        if let Some(exact) = entries().find(is_exact) {
            return Some(exact.arg(0));
        }
        for (expression, value) in &self.expressions {
            if expression.as_ref()?.is_match(source) {
                return Some(value);
            }
        }
        Some(entries().find(|entry| entry.name == "default").map_or("", |entry| entry.arg(0)))
    }
}

impl<'a> Http<'a> {
    /// What a tree means for requests below `path`; a tree without `http { }` is what belongs inside it.
    pub(in crate::check) fn of(tree: &'a Tree, path: &str) -> Self {
        let outside = Scope { levels: vec![&tree.directives], place: Place::whole(&tree.name) };
        let main =
            tree.directives.iter().find(|directive| directive.name == "http").map_or(outside.clone(), |http| outside.inner(http));
        let upstreams = main.own("upstream").map(|block| Upstream { name: block.arg(0), block: main.inner(block) }).collect();
        let (log_formats, maps) = (main.own("log_format").collect(), main.own("map").map(Map::of).collect());
        let mut http = Self { main, upstreams, sites: Vec::new(), log_formats, maps };
        http.sites = http.main.own("server").filter_map(|server| http.site(http.main.inner(server), path)).collect();
        http
    }

    fn site(&self, server: Scope<'a>, path: &str) -> Option<Site<'a>> {
        let engine = location(&server, path)?;
        let pass = engine.own("proxy_pass").last()?;
        let target = pass.arg(0).split_once("://").map_or(pass.arg(0), |(_, rest)| rest);
        let template = if target.starts_with("unix:") { target } else { target.split('/').next().unwrap_or_default() };
        Some(Site { server, engine, pass, route: self.route(template) })
    }

    fn route(&self, template: &str) -> Route<'a> {
        let maps = self.maps_of(template);
        let keys = maps.iter().flat_map(|map| map.inside()).flat_map(|entry| entry.name.split(|c: char| !c.is_ascii_digit()));
        let nodes: BTreeSet<u32> = keys.filter_map(|digits| digits.parse().ok()).collect();
        let of_sid = |sid: &str| self.expand(template, ("arg_sid", sid));
        let of_node = |node: u32| of_sid(&format!("{node}-00abcdefghijklmn"));
        let pool = of_sid("");
        let owners =
            nodes.into_iter().filter_map(|node| Some((node, of_node(node)?))).filter(|(_, target)| pool.as_ref() != Some(target));
        Route { owners: owners.collect(), nobody: of_node(NOBODY), pool, maps }
    }

    /// The maps that a text depends on.
    fn maps_of(&self, template: &str) -> Vec<&'a Directive> {
        let mut maps: Vec<&Directive> = Vec::new();
        let mut texts = vec![template];
        while let Some(text) = texts.pop() {
            for map in self.maps.iter().map(|map| map.directive).filter(|map| text.contains(map.arg(1))) {
                if !maps.iter().any(|known| known.arg(1) == map.arg(1)) {
                    maps.push(map);
                    texts.push(map.arg(0));
                    texts.extend(map.inside().iter().map(|entry| entry.arg(0)));
                }
            }
        }
        maps
    }

    /// The map that gives a variable its value.
    pub(in crate::check) fn map(&self, variable: &str) -> Option<&'a Directive> {
        self.maps.iter().map(|map| map.directive).find(|map| map.arg(1) == variable)
    }

    pub(in crate::check) fn upstream(&self, name: &str) -> Option<&Upstream<'a>> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }
}

impl Http<'_> {
    /// A text with its variables filled in when one of them is known; `None` when it hangs on another that is not.
    pub(in crate::check) fn expand(&self, template: &str, known: (&str, &str)) -> Option<String> {
        self.expanded(template, known, 0)
    }

    fn expanded(&self, template: &str, known: (&str, &str), depth: usize) -> Option<String> {
        if depth == DEPTH {
            return None;
        }
        let mut parts = template.split('$');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // `${name}rest` or `$name` and what is no letter of a name.
            let (name, rest) = match part.strip_prefix('{') {
                Some(braced) => braced.split_once('}')?,
                None => {
                    part.split_at_checked(part.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(part.len()))?
                }
            };
            text += &self.variable(name, known, depth)?;
            text += rest;
        }
        Some(text)
    }

    fn variable(&self, name: &str, known: (&str, &str), depth: usize) -> Option<String> {
        // nginx finds an argument whatever the case of its letters.
        if name.eq_ignore_ascii_case(known.0) {
            return Some(known.1.to_owned());
        }
        let map = self.maps.iter().find(|map| map.directive.arg(1).strip_prefix('$') == Some(name))?;
        let source = self.expanded(map.directive.arg(0), known, depth + 1)?;
        self.expanded(map.of_source(&source)?, known, depth + 1)
    }
}

/// The location that nginx chooses: an exact one, else the longest prefix, unless a regular expression matches and the prefix is not `^~`.
fn location<'a>(scope: &Scope<'a>, path: &str) -> Option<Scope<'a>> {
    let of = |modifier: &'static str| scope.own("location").filter(move |each| each.args.len() == 2 && each.arg(0) == modifier);
    if let Some(exact) = of("=").find(|each| each.arg(1) == path) {
        return Some(scope.inner(exact));
    }
    let plain = scope.own("location").filter(|each| each.args.len() == 1).map(|each| (each, each.arg(0)));
    let eager = of("^~").map(|each| (each, each.arg(1)));
    let prefix = plain.chain(eager).filter(|(_, prefix)| path.starts_with(prefix)).max_by_key(|(_, prefix)| prefix.len());
    let is_eager = prefix.is_some_and(|(each, _)| each.args.len() == 2);
    let prefix = prefix.map(|(each, _)| scope.inner(each));
    let nested = prefix.as_ref().and_then(|prefix| location(prefix, path));
    if is_eager || nested.is_some() {
        return nested.or(prefix);
    }
    let expressions = scope.own("location").filter(|each| matches!(each.arg(0), "~" | "~*") && each.args.len() == 2);
    let matching = expressions.into_iter().find(|each| {
        let expression = if each.arg(0) == "~*" { format!("(?i){}", each.arg(1)) } else { each.arg(1).to_owned() };
        Regex::new(&expression).is_ok_and(|expression| expression.is_match(path))
    });
    matching.map(|each| scope.inner(each)).or(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_request_is_sent_where_its_sid_says() {
        let text = "map $arg_sid $owner { default ''; ~^0- 0; \"~^12-\" 12; }\n\
                    map $owner $backend { default pool; 0 zero; 12 ${owner}th; }\n\
                    server { location /socket.io/ { proxy_pass http://$backend; } }";
        let tree = Tree::of(Path::new("x"), text).expect("read");
        let http = Http::of(&tree, "/socket.io/");
        let route = &http.sites[0].route;
        assert_eq!((route.pool.as_deref(), route.nobody.as_deref()), (Some("pool"), Some("pool")));
        assert_eq!(route.owners, [(0, "zero".to_owned()), (12, "12th".to_owned())]);
        assert_eq!(route.maps.len(), 2);
    }

    #[test]
    fn a_target_without_maps_knows_no_sessions() {
        let tree = Tree::of(Path::new("x"), "server { location / { proxy_pass http://127.0.0.1:3131/; } }").expect("read");
        let http = Http::of(&tree, "/socket.io/");
        let route = &http.sites[0].route;
        assert_eq!((route.pool.as_deref(), route.owners.len()), (Some("127.0.0.1:3131"), 0));
    }

    #[test]
    fn the_location_is_the_one_that_nginx_chooses() {
        for (locations, chosen) in [
            ("location / {a;} location /socket.io/ {b;}", "b"),
            ("location /socket.io/ {a;} location ~ io {b;}", "b"),
            ("location ^~ /socket.io/ {a;} location ~ io {b;}", "a"),
            ("location = /socket.io/ {a;} location ~ io {b;}", "a"),
            ("location ~* ^/SOCKET {a;} location / {b;}", "a"),
            ("location /socket {c; location /socket.io/ {a;} } location / {b;}", "a"),
        ] {
            let tree = Tree::of(Path::new("x"), locations).expect("read");
            let scope = Scope { levels: vec![&tree.directives], place: Place::whole("x") };
            let found = location(&scope, "/socket.io/").expect("one");
            assert!(found.own(chosen).next().is_some(), "{locations}");
        }
    }

    #[test]
    fn the_innermost_value_holds_and_lists_are_not_joined() {
        let text = "a 1; b 1; server { a 2; location / { b 2; b 3; } }";
        let tree = Tree::of(Path::new("x"), text).expect("read");
        let outside = Scope { levels: vec![&tree.directives], place: Place::whole("x") };
        let server = outside.inner(&tree.directives[2]);
        let inner = server.inner(&tree.directives[2].inside()[1]);
        assert_eq!(inner.one("a").map(|a| a.arg(0)), Some("2"));
        assert_eq!(inner.all("b").iter().map(|b| b.arg(0)).collect::<Vec<_>>(), ["2", "3"]);
        assert!(inner.one("c").is_none());
    }
}
