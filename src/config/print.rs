//! A configuration as a file, printed from what the settings say of themselves.

use super::Config;
use crate::options::{Describe, Setting};
use serde_json::Value;

const WIDTH: usize = 100;

impl Config {
    /// A TOML file that makes this configuration: every setting below its sentence, and commented out where it is at its default.
    pub fn to_toml(&self) -> String {
        // What is not set is shown as what it comes to.
        let node = Some(self.node());
        let shown = json(&Self { node, ..self.clone() });
        let defaults = json(&Self { node: if self.node.is_none() { node } else { None }, ..Self::default() });

        let mut file = String::new();
        comment(&mut file, &["The settings of stickyport. One behind a # is at its default; remove the # to change it."]);
        comment(
            &mut file,
            &[
                "Order: defaults < this file (--config) < environment < flags. In the environment, STICKYPORT_ENGINE__PING_INTERVAL=20s sets engine.ping_interval; on the command line, --set engine.ping_interval=20s does.",
            ],
        );
        comment(&mut file, &["Times have a unit: ms, s, m or h. Sizes are in bytes, or have one: KB, KiB, MB, MiB, GB or GiB."]);
        table(&mut file, Self::SETTINGS, &shown, &defaults);
        for inner in Self::TABLES {
            file.push('\n');
            comment(&mut file, inner.doc);
            file.push_str(&format!("[{}]\n", inner.key));
            table(&mut file, inner.settings, &shown[inner.key], &defaults[inner.key]);
        }
        file
    }
}

pub(super) fn json(config: &Config) -> Value {
    serde_json::to_value(config).expect("settings are plain data")
}

fn table(file: &mut String, settings: &[Setting], shown: &Value, defaults: &Value) {
    for Setting { key, doc } in settings {
        let mark = if shown[key] == defaults[key] { "#" } else { "" };
        file.push('\n');
        comment(file, doc);
        file.push_str(&format!("{mark}{key} = {}\n", toml(&shown[key])));
    }
}

/// A paragraph, broken into lines.
fn comment(file: &mut String, doc: &[&str]) {
    let mut line = String::from("#");
    for word in doc.iter().flat_map(|text| text.split_whitespace()) {
        if line.len() + 1 + word.len() > WIDTH {
            file.push_str(&line);
            file.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    file.push_str(&line);
    file.push('\n');
}

/// TOML writes these values as JSON does, but for the space after a comma.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::protocol::sid::Node;

    #[test]
    fn what_is_printed_makes_the_same_configuration() {
        let defaults = Config::default();
        let mut changed = Config { instance: 3, public_url: r#"https://example.org/"a\"#.to_owned(), ..Config::default() };
        changed.engine.allow_eio3 = true;
        changed.cors.origins = vec!["https://a.example".to_owned(), "https://b.example".to_owned()];
        changed.limits.outbox_bytes = 1_000_001;
        let with_node = Config { node: Some(Node::try_from(0).expect("a node")), ..Config::default() };
        for (name, config) in [("defaults", defaults), ("changed", changed), ("node", with_node)] {
            assert_eq!(load(name, &config.to_toml()), config);
        }
    }

    #[test]
    fn without_its_comments_it_makes_the_same_configuration() {
        let uncommented: String = Config::default().to_toml().lines().map(uncomment).collect();
        let defaults = Config::default();
        assert_eq!(load("uncommented", &uncommented), Config { node: Some(defaults.node()), ..defaults });
    }

    #[test]
    fn every_setting_has_a_sentence_and_a_line() {
        let file = Config::default().to_toml();
        let tables = Config::TABLES.iter().map(|table| (table.doc, table.settings));
        for (doc, settings) in tables.chain([(Config::DOC, Config::SETTINGS)]) {
            assert!(doc.concat().trim_end().ends_with('.'), "{doc:?}");
            for setting in settings {
                assert!(setting.doc.concat().trim_end().ends_with('.'), "{}", setting.key);
                assert!(file.contains(&format!("\n#{} = ", setting.key)), "{}", setting.key);
            }
        }
    }

    #[test]
    fn no_line_is_too_long() {
        for line in Config::default().to_toml().lines().filter(|line| line.starts_with("# ")) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    /// A setting is `#key = value`, a sentence is `# Words`.
    fn uncomment(line: &str) -> String {
        match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        }
    }

    fn load(name: &str, text: &str) -> Config {
        let path = std::env::temp_dir().join(format!("stickyport-example-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("written");
        let loaded = Config::load(Sources { file: Some(path.clone()), ..Sources::default() });
        std::fs::remove_file(path).expect("removed");
        loaded.map_err(|error| error.to_string()).expect("accepted").config
    }
}
