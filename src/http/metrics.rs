//! The page that Prometheus reads, and who else may.

use super::Peer;
use super::client_address::{FORWARDED_FOR, Networks};
use crate::metrics::{Metrics, Value};
use crate::protocol::sid::Node;
use http::HeaderMap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;

/// The `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters that differ in one label: the beginning of their fields, the family, its sentence, the label.
const FAMILIES: [(&str, &str, &str, &str); 3] = [
    ("closed_", "sessions_closed", "Sessions closed, by the reference's reasons.", "reason"),
    ("refused_", "requests_refused", "Requests refused.", "reason"),
    ("limit_", "limit_reached", "Times that a limit was reached.", "limit"),
];

/// Whether this request may read the page: directly over TCP and from an address that is allowed.
///
/// A request that came through a proxy never may: its peer's address says nothing of who asks.
pub fn is_allowed(peer: &Peer, headers: &HeaderMap, allow: &Networks) -> bool {
    !headers.contains_key(FORWARDED_FOR) && peer.ip().is_some_and(|ip| allow.contains(ip))
}

/// Writes the page.
#[derive(Debug)]
pub struct Page {
    registry: Registry,
}

impl Page {
    /// A page of all that `metrics` counts, and of what is known about the process.
    pub fn new(metrics: Arc<Metrics>, instance: u16, node: Node, started: SystemTime) -> Self {
        let mut registry = Registry::default();
        let labels =
            [("instance", instance.to_string()), ("node", node.to_string()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
        let stickyport = registry.sub_registry_with_prefix("stickyport");
        stickyport.register("process", "Which process this is", Info::new(labels));
        stickyport.register_collector(Box::new(Counted(metrics)));
        registry.register_collector(Box::new(Process { started }));
        Self { registry }
    }

    /// The page as it is now.
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("a string takes everything");
        page
    }
}

/// Our own counters.
#[derive(Debug)]
struct Counted(Arc<Metrics>);

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.all();
        let is_labelled = |name: &str| FAMILIES.iter().any(|(start, ..)| name.starts_with(start));
        for (name, doc, value) in all.iter().filter(|(name, ..)| !is_labelled(name)) {
            single(&mut encoder, name, doc, *value)?;
        }
        for (start, family, doc, label) in FAMILIES {
            let counter = ConstCounter::new(0u64);
            let mut family = encoder.encode_descriptor(family, doc, None, counter.metric_type())?;
            for (name, _, value) in &all {
                if let (Some(name), Value::Counter(value)) = (name.strip_prefix(start), value) {
                    ConstCounter::new(*value).encode(family.encode_family(&[(label, name)])?)?;
                }
            }
        }
        Ok(())
    }
}

/// What the kernel knows about the process, under the names that all of Prometheus's clients use, and what its runtime knows.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let since_epoch = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let started = ConstGauge::new(since_epoch);
        let descriptor = encoder.encode_descriptor(
            "process_start_time_seconds",
            "When the process started, since the epoch.",
            None,
            started.metric_type(),
        )?;
        started.encode(descriptor)?;
        for (name, doc, value) in [
            ("process_resident_memory_bytes", "Memory that is resident.", resident_memory()),
            ("process_open_fds", "Open file descriptors.", open_descriptors()),
            ("process_max_fds", "File descriptors that may be open.", most_descriptors()),
            ("stickyport_tasks", "Tasks of the runtime that have not ended.", tasks()),
        ] {
            if let Some(value) = value {
                single(&mut encoder, name, doc, Value::Gauge(value))?;
            }
        }
        Ok(())
    }
}

fn single(encoder: &mut DescriptorEncoder<'_>, name: &str, doc: &str, value: Value) -> fmt::Result {
    let metric: &dyn EncodeMetric = match value {
        Value::Counter(value) => &ConstCounter::new(value),
        Value::Gauge(value) => &ConstGauge::new(value),
    };
    metric.encode(encoder.encode_descriptor(name, doc, None, metric.metric_type())?)
}

fn tasks() -> Option<i64> {
    let tasks = Handle::try_current().ok()?.metrics().num_alive_tasks();
    i64::try_from(tasks).ok()
}

fn resident_memory() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<i64>().ok().map(|kibibytes| kibibytes * 1024)
}

fn open_descriptors() -> Option<i64> {
    // Since Linux 6.2 the folder's size is their number; before that it is 0 and they must be counted.
    let told = fs::metadata("/proc/self/fd").ok()?.len();
    let count = if told > 0 { told } else { fs::read_dir("/proc/self/fd").ok()?.count() as u64 };
    i64::try_from(count).ok()
}

fn most_descriptors() -> Option<i64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?;
    soft.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_counter_is_on_the_page() {
        let metrics = Arc::new(Metrics::default());
        metrics.sessions.add(3);
        metrics.upgrades.add(2);
        metrics.closed_ping_timeout.add(7);
        metrics.refused_sid_other.add(5);
        metrics.limit_outbox.inc();
        let page = page(&metrics);
        for line in [
            "# HELP stickyport_sessions Sessions that are open.",
            "# TYPE stickyport_sessions gauge",
            "stickyport_sessions 3",
            "# TYPE stickyport_upgrades counter",
            "stickyport_upgrades_total 2",
            "# TYPE stickyport_sessions_closed counter",
            r#"stickyport_sessions_closed_total{reason="ping_timeout"} 7"#,
            r#"stickyport_requests_refused_total{reason="sid_other"} 5"#,
            r#"stickyport_limit_reached_total{limit="outbox"} 1"#,
            r#"stickyport_process_info{instance="3",node="35",version="0.1.0"} 1"#,
            "process_start_time_seconds 1.5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
        let samples = page.lines().filter(|line| line.starts_with("stickyport_")).count();
        assert_eq!(samples, metrics.all().len() + 1, "each once, and the info");
    }

    #[test]
    fn a_family_is_described_once() {
        let page = page(&Arc::new(Metrics::default()));
        let mut described: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let all = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!(described.len(), all);
    }

    #[test]
    fn the_kernel_tells_what_the_process_uses() {
        assert!(resident_memory().is_some_and(|bytes| bytes > 100_000));
        let before = open_descriptors().expect("told");
        let _file = fs::File::open("/dev/null").expect("opened");
        assert!(open_descriptors().expect("told") > 0 && before > 2);
        assert!(most_descriptors().is_some_and(|most| most > before));
    }

    #[test]
    fn strangers_and_proxies_may_not_read_it() {
        let allow = Networks::of(&["127.0.0.0/8", "10.0.0.0/8"]);
        let direct = HeaderMap::new();
        let mut forwarded = HeaderMap::new();
        forwarded.insert(FORWARDED_FOR, "127.0.0.1".parse().expect("a header"));
        let tcp = |address: &str| Peer::Tcp(address.parse().expect("an address"));
        assert!(is_allowed(&tcp("127.0.0.1:1"), &direct, &allow));
        assert!(is_allowed(&tcp("[::ffff:10.0.0.1]:1"), &direct, &allow));
        assert!(!is_allowed(&tcp("127.0.0.1:1"), &forwarded, &allow));
        assert!(!is_allowed(&tcp("192.0.2.1:1"), &direct, &allow));
        assert!(!is_allowed(&Peer::Unix, &direct, &allow), "nginx may be at the other end");
    }

    fn page(metrics: &Arc<Metrics>) -> String {
        let node = Node::try_from(35).expect("in range");
        Page::new(metrics.clone(), 3, node, UNIX_EPOCH + Duration::from_millis(1500)).render()
    }
}
