//! Hundreds of clients, a clock that is not real, and everything that can go wrong, drawn from a seed: the same seed, the same run.
//!
//! The server is the real one from the engine up; only HTTP and the sockets are played. `SEED=123 cargo test --test simulation` runs one seed again.

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
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once};
use std::time::Duration;

const SEEDS: u64 = 1_000;
const SEEDS_IF_LONG: u64 = 10_000;

/// No run takes so long, by its own clock.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// Of the whole trace.
    hash: u64,
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
    let is_long = std::env::var_os("STICKYPORT_LONG").is_some();
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..if is_long { SEEDS_IF_LONG } else { SEEDS },
    };
    let next = AtomicU64::new(seeds.start);
    let failures = Mutex::new(Vec::new());
    let counted = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run(seed);
                    for (name, count) in outcome.counted {
                        *counted.lock().expect("no panic").entry(name).or_insert(0) += count;
                    }
                    if let Some(failure) = outcome.failure {
                        failures.lock().expect("no panic").push(failure);
                        // The others would tell of the same.
                        next.store(seeds.end, Relaxed);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let counted = counted.into_inner().expect("no panic");
    let missed: Vec<_> = REACHED.iter().filter(|name| counted[**name] == 0).collect();
    assert!(missed.is_empty() || seeds.end - seeds.start < SEEDS, "not once in all these runs: {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).hash, run(2).hash);
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
        let tail = books.tail();
        format!("seed {seed}: {promise}\n{tail}\nonce more: SEED={seed} cargo test --test simulation\n")
    });
    Outcome { hash: books.hash(), failure, counted: books.counted().to_vec() }
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
