//! The example file, printed from what the settings say of themselves.

use super::Config;
use crate::options::{Describe, Setting};
use serde_json::Value;

const WIDTH: usize = 100;

/// A TOML file with every setting at its default, each below its sentence and commented out.
pub fn example() -> String {
    let defaults = Config::default();
    // A setting without a default is shown as what it comes to.
    let shown = Config { node: Some(defaults.node()), ..defaults };
    let values = serde_json::to_value(shown).expect("settings are plain data");

    let mut file = String::new();
    comment(&mut file, &["The settings of stickyport at their defaults. Remove the # before a setting to change it."]);
    comment(
        &mut file,
        &[
            "Order: defaults < this file (--config) < environment < flags. In the environment, STICKYPORT_ENGINE__PING_INTERVAL=20s sets engine.ping_interval; on the command line, --set engine.ping_interval=20s does.",
        ],
    );
    comment(&mut file, &["Times have a unit: ms, s, m or h. Sizes are in bytes, or have one: KB, KiB, MB, MiB, GB or GiB."]);
    table(&mut file, Config::SETTINGS, &values);
    for inner in Config::TABLES {
        file.push('\n');
        comment(&mut file, inner.doc);
        file.push_str(&format!("[{}]\n", inner.key));
        table(&mut file, inner.settings, &values[inner.key]);
    }
    file
}

fn table(file: &mut String, settings: &[Setting], values: &Value) {
    for setting in settings {
        file.push('\n');
        comment(file, setting.doc);
        file.push_str(&format!("#{} = {}\n", setting.key, toml(&values[setting.key])));
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
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(load("as-it-is", &example()), Config::default());
    }

    #[test]
    fn the_example_without_its_comments_is_the_defaults() {
        let uncommented: String = example().lines().map(uncomment).collect();
        let defaults = Config::default();
        assert_eq!(load("uncommented", &uncommented), Config { node: Some(defaults.node()), ..defaults });
    }

    #[test]
    fn every_setting_has_a_sentence_and_a_line() {
        let example = example();
        let tables = Config::TABLES.iter().map(|table| (table.doc, table.settings));
        for (doc, settings) in tables.chain([(Config::DOC, Config::SETTINGS)]) {
            assert!(doc.concat().trim_end().ends_with('.'), "{doc:?}");
            for setting in settings {
                assert!(setting.doc.concat().trim_end().ends_with('.'), "{}", setting.key);
                assert!(example.contains(&format!("\n#{} = ", setting.key)), "{}", setting.key);
            }
        }
    }

    #[test]
    fn no_line_is_too_long() {
        for line in example().lines().filter(|line| line.starts_with("# ")) {
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
