//! SIGHUP to the binary: what it takes of a configuration that has changed, what it names, and that a wrong one changes nothing.

mod process;

use process::{Instance, Place, request};
use std::net::SocketAddr;
use std::path::Path;

#[test]
fn level_limits_and_origins_are_taken_and_the_rest_is_named() {
    let place = Place::new("reload");
    let file = place.file("stickyport.toml", "[limits]\nsessions = 1\n");
    let mut instance = Instance::start(place.command(0).arg("--config").arg(&file));
    let sid = open(place.own(0)).expect("the first");
    assert!(open(place.own(0)).is_none());

    place.file(
        "stickyport.toml",
        "[limits]\nsessions = 2\n[cors]\norigins = [\"https://a.example\"]\n[log]\nlevel = \"debug\"\n[engine]\nping_interval = \"20s\"\n",
    );
    instance.signal("-HUP");
    instance.wait_for_log(
        "INFO stickyport::reload: reloaded: limits.sessions = 2 (was 1), \
         cors.origins = [\"https://a.example\"] (was []), log.level = \"debug\" (was \"info\")",
    );
    instance.wait_for_log("WARN stickyport::reload: takes effect at the next start: engine.ping_interval");
    let answer = request(place.own(0), &format!("{HANDSHAKE}Origin: https://a.example\r\n"), "");
    assert!(answer.contains("\r\naccess-control-allow-origin: https://a.example\r\n"), "{answer}");
    assert!(answer.contains(r#""pingInterval":25000"#), "{answer}");
    assert!(open(place.own(0)).is_none(), "two are here");
    instance.wait_for_log("DEBUG");
    assert!(post(place.own(0), &sid, "40"), "a session that was open goes on");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_named_in_one_line() {
    let place = Place::new("reload-wrong");
    let file = place.file("stickyport.toml", "[limits]\nsessions = 1\n");
    let mut instance = Instance::start(place.command(0).arg("--config").arg(&file));
    let _sid = open(place.own(0)).expect("the first");
    let shown = file.display();
    for (text, what) in [
        (
            "[limits]\nsessions = 2\n[limits",
            "TOML parse error at line 3, column 8: invalid table header, expected `.`, `]`".to_owned(),
        ),
        ("[limits]\nsessions = \"two\"\n", "limits.sessions: found \"two\", expected a whole number, 0 or more".to_owned()),
        (
            "[limits]\nsessions = 2\nheaders = 0\nquery_parameters = 0\n",
            format!("limits.headers: must be more than 0; {shown}: limits.query_parameters: must be more than 0"),
        ),
    ] {
        place.file("stickyport.toml", text);
        instance.signal("-HUP");
        instance.wait_for_log(&format!(
            "ERROR stickyport::reload: nothing is reloaded, the configuration is wrong: {shown}: {what}\n"
        ));
        assert!(open(place.own(0)).is_none(), "it is as it was");
    }
    std::fs::remove_file(&file).expect("removed");
    instance.signal("-HUP");
    instance.wait_for_log("No such file or directory");
    place.file("stickyport.toml", "[limits]\nsessions = 2\n");
    instance.signal("-HUP");
    instance.wait_for_log("INFO stickyport::reload: reloaded: limits.sessions = 2 (was 1)");
    assert!(open(place.own(0)).is_some());
}

#[test]
fn variables_and_flags_beat_the_file_as_they_did_at_the_start() {
    let place = Place::new("reload-order");
    let file = place.file("stickyport.toml", "");
    let mut command = place.command(0);
    command.args(["--set", "limits.sessions=1", "--config"]).arg(&file).env("STICKYPORT_LIMITS__HEADERS", "50");
    let mut instance = Instance::start(&mut command);
    place.file("stickyport.toml", "[limits]\nsessions = 2\nheaders = 60\n");
    instance.signal("-HUP");
    instance.wait_for_log("INFO stickyport::reload: reloaded: nothing changes");
}

#[test]
fn a_session_keeps_the_limits_of_its_beginning() {
    const TWO: &str = "40\u{1e}40/none,";
    let place = Place::new("reload-session");
    let file = place.file("stickyport.toml", "");
    let mut instance = Instance::start(place.command(0).arg("--config").arg(&file));
    let before = open(place.own(0)).expect("a session");
    set_packets(&mut instance, &file, 1);
    let after = open(place.own(0)).expect("a session");
    for (sid, goes_on) in [(&before, true), (&after, false)] {
        assert!(post(place.own(0), sid, TWO), "a payload that is too long is answered all the same");
        assert_eq!(post(place.own(0), sid, "3"), goes_on);
    }
}

const HANDSHAKE: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n";

fn set_packets(instance: &mut Instance, file: &Path, packets: usize) {
    std::fs::write(file, format!("[limits]\npackets_per_payload = {packets}\n")).expect("written");
    instance.signal("-HUP");
    instance.wait_for_log("reloaded: limits.packets_per_payload");
}

/// Opens a session on polling: its sid, unless it is refused.
fn open(server: SocketAddr) -> Option<String> {
    let answer = request(server, HANDSHAKE, "");
    let (_, rest) = answer.split_once("\"sid\":\"")?;
    Some(rest.split_once('"').expect("a sid").0.to_owned())
}

/// Whether the session was still there.
fn post(server: SocketAddr, sid: &str, payload: &str) -> bool {
    let head = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\n");
    request(server, &head, payload).ends_with("\r\nok")
}
