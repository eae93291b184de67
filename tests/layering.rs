//! The architecture as the sources have it: arrows point one way, each outside package has its home, every file says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may use of the crate, besides itself and the leaves.
const LAYERS: &[(&str, &[&str])] = &[
    ("options", &[]),
    ("metrics", &[]),
    ("reminder", &[]),
    ("current", &[]),
    ("protocol", &[]),
    ("engine", &["protocol"]),
    ("hub", &["protocol", "engine"]),
    ("cluster", &["protocol", "engine", "hub"]),
    ("http", &["protocol", "engine"]),
    ("apps", &["protocol", "engine", "hub", "http"]),
    ("telemetry", &[]),
    ("shutdown", &[]),
    ("systemd", &["shutdown"]),
    ("config", &["protocol", "engine", "hub", "cluster", "http", "telemetry"]),
    ("reload", &["protocol", "http", "config", "telemetry", "systemd"]),
    ("check", &["cluster", "config", "http", "shutdown"]),
    ("cli", &["check", "cluster", "config", "http", "hub"]),
    ("server", &["protocol", "engine", "hub", "cluster", "http", "shutdown"]),
];

/// Leaves that every layer may use.
const LEAVES: &[&str] = &["options", "metrics", "reminder", "current"];

/// The places that may name a package; a package that is not listed is free.
const HOMES: &[(&str, &[&str])] = &[
    ("figment", &["config"]),
    ("arc_swap", &["current"]),
    ("prometheus_client", &["http/metrics"]),
    ("hyper", &["http", "server"]),
    ("hyper_util", &["http"]),
    ("axum", &["http", "server", "apps"]),
    ("tokio_tungstenite", &["engine/transport/websocket", "http/engine"]),
    ("clap", &["cli"]),
    ("tracing_subscriber", &["telemetry"]),
    ("sd_notify", &["http/listen", "systemd"]),
    ("rust_embed", &["http/client_script", "apps"]),
    ("getrandom", &["engine"]),
    ("regex", &["hub", "check/nginx"]),
    ("rmp", &["protocol/sio"]),
    ("redis", &["cluster"]),
];

#[test]
fn arrows_point_one_way() {
    for (path, text) in sources() {
        let layer = layer(&path);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            assert!(["lib", "main"].contains(&&*layer), "{} belongs to no layer", path.display());
            continue;
        };
        for used in text.match_indices("crate::").map(|(at, _)| word(text.get(at + 7..).unwrap_or_default())) {
            let is_layer = LAYERS.iter().any(|(name, _)| *name == used);
            let may = used == layer || LEAVES.contains(&used) || allowed.contains(&used);
            assert!(!is_layer || may, "{} is of layer {layer} and must not use {used}", path.display());
        }
    }
}

#[test]
fn the_protocol_is_pure() {
    for (path, text) in sources().into_iter().filter(|(path, _)| layer(path) == "protocol") {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for impure in ["tokio", "Instant::now", "SystemTime::now", "getrandom", "std::net", "std::thread", "tracing"] {
            assert!(!code.contains(impure), "{} names {impure}", path.display());
        }
    }
}

#[test]
fn each_outside_package_has_its_home() {
    for (path, text) in sources() {
        let place = path.with_extension("").display().to_string();
        for (package, homes) in HOMES {
            let names = [format!("use {package}::"), format!(" {package}::"), format!("({package}::")];
            let is_used = names.iter().any(|name| text.contains(name.as_str()));
            let is_home = homes.iter().any(|home| place.starts_with(home));
            assert!(!is_used || is_home, "{} is not the place for {package}", path.display());
        }
    }
}

#[test]
fn every_file_opens_with_a_sentence() {
    for (path, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 20, "{} does not say what it is for", path.display());
    }
}

/// The sources below `src`, paths relative to it.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                files.push((path.strip_prefix(&root).expect("below src").to_owned(), text));
            }
        }
    }
    assert!(files.len() > 30);
    files
}

fn layer(path: &Path) -> String {
    let first = path.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}
