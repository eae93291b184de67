//! What the binary makes of its settings: what it prints, what it refuses, and how it ends then.

mod process;

use process::{Instance, Place, run, stickyport};
use std::net::TcpListener;

#[test]
fn the_printed_example_is_accepted_as_it_stands_and_without_its_comments() {
    let place = Place::new("example");
    let (code, example, _) = run(stickyport().arg("print-config"));
    assert_eq!(code, Some(0));
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(uncommented.contains("\nping_interval = \"25s\"\n"));
    for (name, text) in [("as-it-stands.toml", &example), ("uncommented.toml", &uncommented)] {
        let (code, out, complaints) = run(stickyport().arg("check-config").arg("--config").arg(place.file(name, text)));
        assert_eq!((code, complaints.as_str()), (Some(0), ""), "{name}");
        assert_eq!(out, "The configuration is right: instance 0, node 0, shared port 0.0.0.0:8080, own port 0.0.0.0:3131.\n");
    }
}

#[test]
fn what_is_printed_is_what_serve_would_run_with() {
    let place = Place::new("print");
    let file = place.file("stickyport.toml", "[engine]\nping_timeout = \"10s\"\n");
    let mut command = stickyport();
    let command = command.args(["print-config", "--instance", "2", "--set", "engine.allow_eio3=true", "--config"]).arg(file);
    let (code, out, complaints) = run(command.env("STICKYPORT_CORS__ORIGINS", "https://a.example,https://b.example"));
    assert_eq!((code, complaints.as_str()), (Some(0), ""));
    let set: Vec<_> = out.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])).collect();
    let origins = r#"origins = ["https://a.example", "https://b.example"]"#;
    assert_eq!(set, ["instance = 2", r#"ping_timeout = "10s""#, "allow_eio3 = true", origins]);
    assert!(out.contains("\n#node = 2\n"), "what is not set is shown as what it comes to");

    let again = place.file("again.toml", &out);
    assert_eq!(run(stickyport().args(["print-config", "--config"]).arg(again)), (code, out, complaints));
    assert_eq!(run(stickyport().args(["print-config", "--set", "engine.ping=1s"])).0, Some(64));
}

#[test]
fn a_typo_in_a_file_stops_the_start_before_any_port_is_bound() {
    let place = Place::new("typo");
    // If it came to binding, it would end with 69.
    let _taken = TcpListener::bind(place.own(0)).expect("bound");
    let file = place.file("stickyport.toml", "[engine]\nping_intervall = \"20s\"\n");
    let (code, out, complaint) = run(place.command(0).arg("--config").arg(&file));
    assert_eq!((code, out.as_str()), (Some(64), ""));
    let start = format!("stickyport: {}: unknown key `engine.ping_intervall`; [engine] has path, ", file.display());
    assert!(complaint.starts_with(&start), "{complaint}");
}

#[test]
fn a_wrong_value_names_its_place() {
    let place = Place::new("value");
    let file = place.file("stickyport.toml", "[engine]\nping_interval = 25\n");
    let wanted = "expected a duration such as \"25s\" or \"500ms\"\n";
    let from_file = run(stickyport().arg("check-config").arg("--config").arg(&file));
    assert_eq!(from_file.0, Some(64));
    assert_eq!(from_file.2, format!("stickyport: {}: engine.ping_interval: found 25, {wanted}", file.display()));
    let from_variable = run(stickyport().arg("check-config").env("STICKYPORT_ENGINE__PING_INTERVAL", "fast"));
    assert_eq!(from_variable.0, Some(64));
    assert_eq!(from_variable.2, format!("stickyport: STICKYPORT_ENGINE__PING_INTERVAL: found \"fast\", {wanted}"));
    let from_flag = run(stickyport().args(["--set", "engine.ping_interval=1d", "check-config"]));
    assert_eq!(from_flag.0, Some(64));
    assert_eq!(from_flag.2, format!("stickyport: --set engine.ping_interval: found \"1d\", {wanted}"));
}

#[test]
fn settings_that_do_not_fit_each_other_are_all_named() {
    let (code, _, complaints) = run(stickyport()
        .args(["check-config", "--instance", "9"])
        .env("STICKYPORT_WS__BASE_PORT", "65530")
        .env("STICKYPORT_LIMITS__HEADERS", "0"));
    assert_eq!(code, Some(64));
    assert_eq!(
        complaints,
        "stickyport: --instance: ws.base_port 65530 + instance 9 is above 65535, the last port\n\
         stickyport: STICKYPORT_LIMITS__HEADERS: must be more than 0\n"
    );
}

#[test]
fn a_file_that_is_named_must_exist() {
    let (code, _, complaint) = run(stickyport().args(["--config", "/nowhere/stickyport.toml"]));
    assert_eq!(code, Some(64));
    assert_eq!(complaint, "stickyport: /nowhere/stickyport.toml: No such file or directory (os error 2)\n");
}

#[test]
fn flags_beat_variables_beat_the_file() {
    let place = Place::new("order");
    let file = place.file("stickyport.toml", "instance = 1\nnode = 1\n[ws]\nbase_port = 1000\n");
    let (code, out, _) = run(stickyport()
        .args(["check-config", "--node", "3", "--config"])
        .arg(file)
        .env("STICKYPORT_INSTANCE", "2")
        .env("STICKYPORT_NODE", "2"));
    assert_eq!(code, Some(0));
    assert_eq!(out, "The configuration is right: instance 2, node 3, shared port 0.0.0.0:8080, own port 0.0.0.0:1002.\n");
}

#[test]
fn a_variable_that_names_no_setting_is_a_warning() {
    // Kubernetes sets this one for a service of our name.
    let kubernetes = ("STICKYPORT_SERVICE_HOST", "10.0.0.1");
    let (code, _, complaint) = run(stickyport().arg("check-config").env(kubernetes.0, kubernetes.1));
    assert_eq!(code, Some(0));
    assert_eq!(complaint, "stickyport: the environment variable STICKYPORT_SERVICE_HOST names no setting and is ignored\n");

    let place = Place::new("warning");
    let (status, log) = Instance::start(place.command(0).env(kubernetes.0, kubernetes.1)).stop();
    assert_eq!(status.code(), Some(0));
    assert!(log.contains("WARN") && log.contains("STICKYPORT_SERVICE_HOST names no setting"), "{log}");
}

#[test]
fn logs_are_for_people_or_for_machines() {
    let place = Place::new("logs");
    let (_, log) = Instance::start(&mut place.command(0)).stop();
    assert!(!log.contains('\x1b'), "no colour where there is no terminal");
    let (_, log) = Instance::start(place.command(0).args(["--set", "log.format=json"])).stop();
    assert!(log.lines().count() > 0);
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("an object a line");
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
    }
    let (_, log) = Instance::start(place.command(0).args(["--set", "log.level=off"])).stop();
    assert_eq!(log, "");
}

#[test]
fn a_redis_that_is_away_is_named_once_and_without_its_password() {
    for command in [&["nodes"][..], &["emit", "hello"]] {
        let (code, out, complaint) = run(stickyport().args(command).args(["--set", "redis.url=redis://user:secret@127.0.0.1:1"]));
        assert_eq!((code, out.as_str()), (Some(75), ""), "{complaint}");
        assert!(complaint.starts_with("stickyport: Redis at 127.0.0.1:1: Redis does not "), "{complaint}");
        assert_eq!(complaint.matches("Connection refused").count(), 1, "{complaint}");
        assert!(!complaint.contains("secret"), "{complaint}");
    }
}

#[test]
fn the_url_that_is_printed_is_the_one_that_is_set() {
    let place = Place::new("url");
    let (http, mut plain) = (place.http, place.command(0));
    assert_eq!(Instance::start(&mut plain).url, format!("http://{http}/page"));
    let public = Instance::start(place.command(0).args(["--set", "public_url=https://chat.example.org/"]));
    assert_eq!(public.url, "https://chat.example.org/page");
}
