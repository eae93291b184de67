//! Hundreds of clients, a clock that is not real, and everything that can go wrong, drawn from a seed: the same seed, the same run.
//!
//! The server is the real one from the engine up; only HTTP and the sockets are played. `SEED=123 cargo test --test simulation` runs one seed again, and
//! `TAIL=1000` shows so many of its last lines if it fails; `FROM=10000` begins with that seed instead of 0.

mod application;
mod chance;
mod client;
mod faults;
mod ledger;
mod line;
mod places;
mod requests;
mod upgrade;
mod wire;
mod world;

use ledger::Ledger;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::time::Duration;

const SEEDS: u64 = 1_000;
const SEEDS_IF_LONG: u64 = 10_000;

/// Runs in which much happens at one moment, so that its order shows.
const CROWDED: &[u64] = &[61, 131, 396];

/// Lines of the trace that a failure shows, unless `TAIL` says otherwise.
const TAIL: usize = 60;

/// So many failures tell whether they are of one kind.
const ENOUGH: usize = 20;

/// No run takes so long, by its own clock.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// What a run came to.
struct Outcome {
    trace: Vec<String>,
    failure: Option<String>,
    counted: Vec<(&'static str, u64)>,
}

/// What the seeds have to come to together, or they prove less than they seem to.
const REACHED: &[&str] = &[
    "upgrades",
    "upgrades_failed",
    "closed_transport_error",
    "closed_transport_close",
    "closed_ping_timeout",
    "closed_parse_error",
    "closed_forced",
    "closed_shutdown",
    "refused_draining",
    "limit_payload",
    "limit_pending_events",
    "limit_outbox",
    "limit_outbound",
    "volatile_dropped",
    "connect_errors",
    "protocol_errors",
    "recovered",
    "not_recovered",
];

#[test]
fn whatever_happens_every_promise_is_kept() {
    let seeds = seeds(0..if is_long() { SEEDS_IF_LONG } else { SEEDS });
    let counted = Mutex::new(BTreeMap::new());
    for_each(&seeds, |seed| {
        let outcome = run(seed);
        for (name, count) in outcome.counted {
            *counted.lock().expect("no panic").entry(name).or_insert(0) += count;
        }
        outcome.failure
    });
    let counted = counted.into_inner().expect("no panic");
    let missed: Vec<_> = REACHED.iter().filter(|name| counted[**name] == 0).collect();
    assert!(missed.is_empty() || seeds.len() == 1, "not once in all these runs: {missed:?}");
}

/// Else a seed that fails could not be run again.
#[test]
fn the_same_seed_gives_the_same_run() {
    let seeds = if is_long() { seeds(0..SEEDS) } else { seeds((0..20).chain(CROWDED.iter().copied())) };
    for_each(&seeds, |seed| {
        let (one, other) = (run(seed).trace, run(seed).trace);
        let at = (0..one.len().max(other.len())).find(|at| one.get(*at) != other.get(*at))?;
        let before = one[at.saturating_sub(10)..at].join("\n");
        Some(format!("seed {seed}: {before}\nand then either {:?}\nor {:?}", one.get(at), other.get(at)))
    });
    assert!(run(1).trace != run(2).trace, "another seed is another run");
}

fn is_long() -> bool {
    std::env::var_os("STICKYPORT_LONG").is_some()
}

/// These, or as many from the one on that `FROM` names, or the one that `SEED` names.
fn seeds(these: impl Iterator<Item = u64>) -> Vec<u64> {
    let named = |name| std::env::var(name).ok().map(|seed| seed.parse::<u64>().expect("a seed is a number"));
    match named("SEED") {
        Some(seed) => vec![seed],
        None => these.map(|seed| seed + named("FROM").unwrap_or(0)).collect(),
    }
}

/// Looks at each of the seeds, on all processors, until [`ENOUGH`] have failed; tells of one how, and names the others.
fn for_each(seeds: &[u64], look: impl Fn(u64) -> Option<String> + Sync) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Relaxed)) {
                    if let Some(failure) = look(*seed) {
                        let mut failures = failures.lock().expect("no panic");
                        failures.push(failure);
                        if failures.len() >= ENOUGH {
                            next.store(seeds.len(), Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let others: Vec<_> = failures.iter().skip(1).filter_map(|failure| failure.lines().next()).collect();
    assert!(failures.is_empty(), "{}\n{}", failures[0], others.join("\n"));
}

fn run(seed: u64) -> Outcome {
    catch_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let ledger = runtime.block_on(async {
        let ledger = Ledger::new();
        tokio::select! {
            biased;
            () = ledger.failed() => {}
            () = world::run(seed, ledger.clone()) => {}
            () = tokio::time::sleep(A_DAY) => ledger.lock().check(false, format_args!("a run comes to its end")),
        }
        ledger
    });
    drop(runtime);
    let mut books = ledger.lock();
    let panicked = PANIC.take();
    books.check(panicked.is_none(), format_args!("nothing panics: {}", panicked.unwrap_or_default()));
    let failure = books.failure().map(|promise| {
        let length = std::env::var("TAIL").ok().and_then(|length| length.parse().ok()).unwrap_or(TAIL);
        let tail = &books.trace()[books.trace().len().saturating_sub(length)..];
        format!("seed {seed}: {promise}\n{}\n\nonce more: SEED={seed} cargo test --test simulation\n", tail.join("\n"))
    });
    Outcome { trace: books.trace().to_vec(), failure, counted: books.counted().to_vec() }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A task that panics ends alone; so what panics on the thread of a run is remembered.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANIC.set(Some(info.to_string()));
            before(info);
        }));
    });
}
