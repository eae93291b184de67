//! The settings of a process: every layer's own, filled from defaults, a file, the environment and flags, in this order.

mod error;
mod print;
mod reload;
mod run_dir;
mod sources;
mod validate;

pub use error::{ConfigError, Problem};
pub use reload::Reloaded;
pub use run_dir::RunDirError;
pub use sources::{Flag, Sources, table};

use crate::http::listen::Plan;
use crate::http::options::{Cors, Http, Metrics, Ws};
use crate::options;
use crate::protocol::limits::Limits;
use crate::protocol::sid::Node;
use crate::{cluster, engine, hub, telemetry};
use figment::Figment;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

options! {
    /// Every setting, its unit and its default.
    pub struct Config {
        /// Which process of this host this is: 0, 1, 2 and so on. Its own port is `ws.base_port` + `instance`.
        pub instance: u16 = 0,
        /// Number that no other process of the whole fleet has, up to 99999; every sid begins with it. If it is not set, it is the instance.
        pub node: Option<Node> = None,
        /// Folder of the unix socket `<instance>.sock`, which serves what the own port serves; who may enter the folder may connect.
        /// If it is empty: systemd's RuntimeDirectory, else /run/stickyport, else a folder of the user's own.
        pub run_dir: PathBuf = PathBuf::new(),
        /// URL under which browsers find the server, such as `"https://example.org"`. If it is empty, it is the address of the shared port.
        pub public_url: String = String::new(),
        /// Time over which connections are closed when the process stops, so that their clients do not all come back at once.
        #[serde(with = "options::duration")]
        pub restart_window: Duration = Duration::from_secs(2),
        /// Time over which connections are closed when the process drains.
        #[serde(with = "options::duration")]
        pub drain_timeout: Duration = Duration::from_secs(30),
    }
    tables {
        http: Http,
        ws: Ws,
        engine: engine::Options,
        socketio: hub::Options,
        redis: cluster::Options,
        limits: Limits,
        cors: Cors,
        metrics: Metrics,
        log: telemetry::Options,
    }
}

/// A configuration that may be used.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Variables with our prefix that name no setting: a typo, or Kubernetes, which injects some.
    pub unknown_variables: Vec<String>,
    /// Where it was read, to be read there again.
    pub sources: Sources,
    figment: Figment,
}

impl Loaded {
    /// Where a setting was written down: a file, a variable or a flag; empty when it is the default.
    pub fn place(&self, key: &str) -> String {
        self.figment.find_metadata(key).map_or_else(String::new, |metadata| metadata.name.to_string())
    }

    /// Finds what cannot be used in a configuration of these sources.
    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let located = config
            .problems()
            .into_iter()
            .map(|(key, what)| Problem { place: error::place(self.figment.find_metadata(key), key), what });
        let problems: Vec<_> = located.collect();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

impl Config {
    /// Reads and checks everything, and touches nothing.
    ///
    /// # Errors
    /// A source cannot be read, names a setting that does not exist, or sets a value that cannot be used.
    pub fn load(sources: Sources) -> Result<Loaded, ConfigError> {
        let (figment, unknown_variables) = sources.merge::<Self>()?;
        let config: Self = figment.extract().map_err(ConfigError::wrong_value)?;
        let loaded = Loaded { config, unknown_variables, sources, figment };
        loaded.check(&loaded.config)?;
        Ok(loaded)
    }

    /// What sids, nginx and the cluster call this process.
    pub fn node(&self) -> Node {
        self.node.unwrap_or_else(|| Node::try_from(u32::from(self.instance)).expect("65535 is below 99999"))
    }

    /// Where the own port is bound.
    pub fn own_address(&self) -> SocketAddr {
        let port = match self.ws.base_port {
            0 => 0,
            base => base.checked_add(self.instance).expect("checked when the configuration was loaded"),
        };
        SocketAddr::new(self.ws.host, port)
    }

    /// Where to listen; makes `run_dir` if it is not there.
    ///
    /// Without a unix socket when none of the default folders can be used: it is a convenience for nginx on the same host.
    ///
    /// # Errors
    /// `run_dir` is set and cannot be used.
    pub fn plan(&self) -> Result<Plan, RunDirError> {
        let folder = run_dir::prepare(&self.run_dir)?;
        let socket = folder.map(|folder| folder.join(format!("{}.sock", self.instance)));
        Ok(Plan { http: self.http.listen, own: self.own_address(), socket })
    }

    /// The URL that a person opens, without a slash at the end; `bound` is the shared port as it was bound.
    pub fn base_url(&self, bound: SocketAddr) -> String {
        if !self.public_url.is_empty() {
            return self.public_url.trim_end_matches('/').to_owned();
        }
        if bound.ip().is_unspecified() { format!("http://localhost:{}", bound.port()) } else { format!("http://{bound}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn nothing_set_is_the_default() {
        let loaded = Config::load(Sources::default()).expect("loaded");
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.unknown_variables.is_empty());
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file = File::new("[engine]\nping_interval = \"1s\"\nping_timeout = \"1s\"\nupgrade_timeout = \"1s\"\n");
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: vec![
                variable("STICKYPORT_ENGINE__PING_INTERVAL", "2s"),
                variable("STICKYPORT_ENGINE__PING_TIMEOUT", "2s"),
            ],
            flags: vec![set("engine.ping_interval", "3s")],
        };
        let engine = Config::load(sources).expect("loaded").config.engine;
        let seconds = [engine.ping_interval, engine.ping_timeout, engine.upgrade_timeout].map(|time| time.as_secs());
        assert_eq!(seconds, [3, 2, 1]);
        assert_eq!(engine.max_payload, 1_000_000);
    }

    #[test]
    fn a_text_is_read_as_its_setting_wants_it() {
        let config = from_environment(&[
            ("INSTANCE", "3"),
            ("NODE", "35"),
            ("RUN_DIR", "/tmp/7"),
            ("HTTP__LISTEN", "127.0.0.1:80"),
            ("HTTP__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
            ("METRICS__ALLOW", r#"["10.0.0.1"]"#),
            ("CORS__ORIGINS", ""),
            ("ENGINE__TRANSPORTS", "websocket"),
            ("ENGINE__ALLOW_UPGRADES", "false"),
            ("ENGINE__COOKIE", "12"),
            ("ENGINE__MAX_PAYLOAD", "2000000"),
            ("LIMITS__OUTBOX_BYTES", "8MiB"),
            ("LIMITS__SESSIONS", "0"),
            ("LOG__FORMAT", "json"),
            ("PUBLIC_URL", r#""https://example.org/""#),
        ])
        .expect("loaded");
        assert_eq!((config.instance, config.node().to_string()), (3, "35".to_owned()));
        assert_eq!(config.run_dir, Path::new("/tmp/7"));
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:80");
        assert_eq!(config.http.trusted_proxies, crate::http::client_address::Networks::of(&["10.0.0.0/8", "::1"]));
        assert_eq!(config.metrics.allow, crate::http::client_address::Networks::of(&["10.0.0.1"]));
        assert!(config.cors.origins.is_empty());
        assert_eq!(config.engine.transports, [engine::TransportKind::WebSocket]);
        assert!(!config.engine.allow_upgrades);
        assert_eq!(config.engine.cookie, "12");
        assert_eq!(config.engine.max_payload, 2_000_000);
        assert_eq!(config.limits.outbox_bytes, 8 << 20);
        assert_eq!(config.limits.sessions, 0);
        assert_eq!(config.log.format, telemetry::Format::Json);
        assert_eq!(config.base_url(config.http.listen), "https://example.org");
    }

    #[test]
    fn the_node_is_the_instance_unless_it_is_set() {
        let config = from_environment(&[("INSTANCE", "7")]).expect("loaded");
        assert_eq!(config.node().to_string(), "7");
        assert_eq!(config.own_address().port(), 3138);
    }

    #[test]
    fn an_unknown_variable_is_told_and_changes_nothing() {
        let environment =
            ["STICKYPORT_PORT", "STICKYPORT_ENGINE", "STICKYPORT_ENGINE__PING", "STICKYPORT_", "STICKYPORT_PORT__80", "PATH"];
        let sources =
            Sources { environment: environment.map(|name| variable(name, "tcp://10.0.0.1:80")).into(), ..Sources::default() };
        let loaded = Config::load(sources).expect("loaded");
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.unknown_variables, environment[..5]);
    }

    #[test]
    fn every_unknown_key_of_a_file_is_named() {
        let file = File::new("instanse = 1\n[engine]\nping_intervall = \"1s\"\n[reddis]\nurl = \"redis://\"\n");
        let error = file.load().expect_err("refused").to_string();
        let path = file.path().display();
        assert_eq!(
            error,
            format!(
                "{path}: unknown key `engine.ping_intervall`; [engine] has path, add_trailing_slash, serve_client, transports, allow_upgrades, \
                 ping_interval, ping_timeout, upgrade_timeout, max_payload, allow_eio3, initial_packet, cookie, \
                 cookie_attributes, http_compression\n\
                 {path}: unknown key `instanse`; there are instance, node, run_dir, public_url, restart_window, drain_timeout, \
                 [http], [ws], [engine], [socketio], [redis], [limits], [cors], [metrics], [log]\n\
                 {path}: unknown key `reddis`; there are instance, node, run_dir, public_url, restart_window, drain_timeout, \
                 [http], [ws], [engine], [socketio], [redis], [limits], [cors], [metrics], [log]"
            )
        );
    }

    #[test]
    fn an_unknown_key_of_a_flag_is_named() {
        for key in ["engine.ping", "engine", "engine.ping_interval.x", "", ".", "engine."] {
            let sources = Sources { flags: vec![set(key, "1")], ..Sources::default() };
            let error = Config::load(sources).expect_err("refused").to_string();
            assert!(error.starts_with(&format!("--set {key}: unknown key; ")), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_says_where_and_what_was_expected() {
        for (variable, text, what) in [
            ("INSTANCE", "one", r#"found "one", expected a whole number from 0 to 65535"#),
            ("INSTANCE", "70000", r"found 70000, expected a whole number from 0 to 65535"),
            ("INSTANCE", "-1", r"found -1, expected a whole number from 0 to 65535"),
            ("NODE", "100000", r"100000 is above 99999, the last node"),
            ("ENGINE__PING_INTERVAL", "25", r#"found "25", expected a duration such as "25s" or "500ms""#),
            ("ENGINE__MAX_PAYLOAD", "1mb", r#"found "1mb", expected a number of bytes such as 1000, "1MB" or "64KiB""#),
            ("ENGINE__TRANSPORTS", "polling,udp", r"found `udp`, expected `polling` or `websocket`"),
            ("ENGINE__ALLOW_UPGRADES", "maybe", r#"found "maybe", expected true or false"#),
            ("HTTP__LISTEN", "8080", r#"expected an address with its port such as "0.0.0.0:8080""#),
            ("WS__HOST", "localhost", r#"expected an address such as "0.0.0.0""#),
            ("LOG__FORMAT", "xml", r"found `xml`, expected `human` or `json`"),
            (
                "HTTP__TRUSTED_PROXIES",
                "10.0.0.0/8,nginx",
                r#"`nginx` is neither an address such as "10.0.0.1" nor a network such as "10.0.0.0/8""#,
            ),
        ] {
            let error = from_environment(&[(variable, text)]).expect_err("refused").to_string();
            assert_eq!(error, format!("STICKYPORT_{variable}: {what}"));
        }
    }

    #[test]
    fn a_wrong_value_in_a_file_names_the_file() {
        for (text, what) in [
            ("[engine]\nping_interval = 25", r#"engine.ping_interval: found 25, expected a duration such as "25s" or "500ms""#),
            ("engine = 25", "engine: found 25, expected a table"),
            ("[instance]\n", "instance: found a table, expected a whole number from 0 to 65535"),
            ("[cors]\norigins = [1]", "cors.origins: found 1, expected a string"),
            ("[cors]\norigins = \"*\"", "cors.origins: found \"*\", expected a list"),
            ("[limits]\nsessions = 1.5", "limits.sessions: found 1.5, expected a whole number, 0 or more"),
        ] {
            let file = File::new(text);
            let error = file.load().expect_err("refused").to_string();
            assert_eq!(error, format!("{}: {what}", file.path().display()));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let missing = Sources { file: Some("/nowhere/stickyport.toml".into()), ..Sources::default() };
        let error = Config::load(missing).expect_err("refused").to_string();
        assert_eq!(error, "/nowhere/stickyport.toml: No such file or directory (os error 2)");
        let broken = File::new("[engine\n");
        let error = broken.load().expect_err("refused").to_string();
        let path = broken.path().display();
        assert_eq!(error, format!("{path}: TOML parse error at line 1, column 8: invalid table header, expected `.`, `]`"));
    }

    #[test]
    fn a_missing_scheme_or_host_is_not_a_url_to_print() {
        let bound = "0.0.0.0:8080".parse().expect("an address");
        assert_eq!(Config::default().base_url(bound), "http://localhost:8080");
        assert_eq!(Config::default().base_url("[::1]:80".parse().expect("an address")), "http://[::1]:80");
    }

    fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = variables.iter().map(|(name, text)| variable(&format!("STICKYPORT_{name}"), text)).collect();
        Config::load(Sources { environment, ..Sources::default() }).map(|loaded| loaded.config)
    }

    fn variable(name: &str, text: &str) -> (std::ffi::OsString, std::ffi::OsString) {
        (name.into(), text.into())
    }

    fn set(key: &str, text: &str) -> Flag {
        Flag { place: format!("--set {key}"), key: key.to_owned(), text: text.to_owned() }
    }

    /// A configuration file of one test's own.
    struct File(PathBuf);

    impl File {
        fn new(text: &str) -> Self {
            use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("stickyport-config-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).expect("written");
            Self(path)
        }

        fn path(&self) -> &Path {
            &self.0
        }

        fn load(&self) -> Result<Config, ConfigError> {
            Config::load(Sources { file: Some(self.0.clone()), ..Sources::default() }).map(|loaded| loaded.config)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
}
