//! The floods: how long well-behaved clients wait while somebody attacks, against how long they wait without.
//!
//! The server has a core of its own. Clients and attacker share the other, and where the user may ask for that, server (nice -20) and clients (SCHED_FIFO)
//! go before everybody else on theirs, so that what the clients see is the server's doing and not that they have to wait for the attacker. How late the clients'
//! own clocks were is shown beside it: nothing below that can be measured.

use super::attacks::Attack;
use super::clients::{Fleet, RoundTrips, Way};
use super::server::{Place, Server, command, may_be_first, move_self, two_cores};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

const CROWD: &[(Way, usize)] = &[(Way::Polling, 25), (Way::WebSocket, 25)];
const INTERVAL: Duration = Duration::from_millis(100);

/// The 99th percentile may be so many times that of the same run without the attack.
const WORSE: f64 = 3.0;

/// The default limits; sessions that a flood leaves behind are gone in ten seconds, so that the next measurement without one need not wait long.
const SERVER: &[&str] = &["--ping-interval=5000", "--ping-timeout=5000", "--limits={}"];

/// An attack needs this long to be in full swing.
const SWING: Duration = Duration::from_secs(4);

/// Measures each attack and prints a line for it; what is returned are the faults.
pub async fn run(attacks: &[Attack], time: Duration, rounds: usize) -> io::Result<Vec<String>> {
    let [core, other] = two_cores().map_or([None; 2], |cores| cores.map(Some));
    let is_first = may_be_first();
    if other.is_none() || !is_first {
        println!("with one core only, or as a user who may not go first, clients, attacker and server take each other's time");
    }
    move_self(&Place { core: other, is_first });
    println!(
        "{rounds} rounds of {} s without and {} s with the attack; times in ms: 99th percentiles, the median of the rounds",
        time.as_secs(),
        time.as_secs()
    );
    println!("{:>22} {:>9} {:>13} {:>31} {:>31} {:>13}", "", "acts/s", "server's CPU", "polling", "websocket", "clients late");
    let mut faults = Vec::new();
    for &attack in attacks {
        let server = Server::start(&Place { core, is_first }, SERVER)?;
        let fleet = Fleet::start(server.address, CROWD, INTERVAL).await;
        let mut pairs = Vec::new();
        let mut acts = 0;
        for _ in 0..rounds {
            let calm = measure(&server, &fleet, time).await?;
            let began = Instant::now();
            let attacker = Attacker::start(attack, &server, other)?;
            sleep(SWING).await;
            let under = measure(&server, &fleet, time).await?;
            let seconds = began.elapsed().as_secs_f64();
            acts += (attacker.stop().await? as f64 / seconds) as u64;
            pairs.push((calm, under));
            settle(&server).await?;
        }
        let [polling, websocket] = [|seen: &Seen| seen.polling, |seen: &Seen| seen.websocket].map(|of| Ratio::of(&pairs, of));
        let late = Ratio::of(&pairs, |seen| seen.late);
        let cpu = |of: fn(&(Seen, Seen)) -> &Seen| median(pairs.iter().map(|pair| of(pair).cpu * 100.0));
        println!(
            "{:>22} {:>9} {:>4.0} % > {:>3.0} % {polling} {websocket} {:>5.2} > {:>5.2}",
            attack.name(),
            acts / rounds as u64,
            cpu(|pair| &pair.0),
            cpu(|pair| &pair.1),
            late.calm,
            late.under,
        );
        for (way, ratio) in [("polling", polling), ("websocket", websocket)] {
            if ratio.median > WORSE {
                faults.push(format!(
                    "{}: over {way} the 99th percentile is {:.1} times what it is without",
                    attack.name(),
                    ratio.median
                ));
            }
        }
        faults.extend(fleet.leave().await.faults().into_iter().map(|fault| format!("{}: {fault}", attack.name())));
    }
    Ok(faults)
}

/// What was seen for some time: 99th percentiles, and the server's share of a core.
struct Seen {
    polling: Duration,
    websocket: Duration,
    late: Duration,
    cpu: f64,
}

async fn measure(server: &Server, fleet: &Fleet, time: Duration) -> io::Result<Seen> {
    fleet.ledger().take_round_trips();
    let (began, cpu) = (Instant::now(), server.cpu()?);
    sleep(time).await;
    let cpu = (server.cpu()? - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let RoundTrips { polling, websocket, late } = fleet.ledger().take_round_trips();
    Ok(Seen { polling: p99(polling), websocket: p99(websocket), late: p99(late), cpu })
}

/// Waits until the sessions that the attack has left behind are gone, or it is clear that they stay.
async fn settle(server: &Server) -> io::Result<()> {
    let clients: usize = CROWD.iter().map(|(_, count)| count).sum();
    let until = Instant::now() + Duration::from_secs(30);
    while server.metrics().await?.get("stickyport_sessions").is_some_and(|sessions| *sessions > clients as f64)
        && Instant::now() < until
    {
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    // Nothing heard at all is the worst of all times.
    times.get(times.len() * 99 / 100).copied().unwrap_or(Duration::MAX)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Without the attack, under it, and how many times worse: the median of the rounds, the best, and the worst.
struct Ratio {
    calm: f64,
    under: f64,
    median: f64,
    spread: (f64, f64),
}

impl Ratio {
    fn of(pairs: &[(Seen, Seen)], time: fn(&Seen) -> Duration) -> Self {
        let ratios = pairs.iter().map(|(calm, under)| time(under).as_secs_f64() / time(calm).as_secs_f64());
        let spread = ratios.clone().fold((f64::MAX, 0.0), |(least, most): (f64, f64), ratio| (least.min(ratio), most.max(ratio)));
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        Self {
            calm: median(pairs.iter().map(|(calm, _)| milliseconds(time(calm)))),
            under: median(pairs.iter().map(|(_, under)| milliseconds(time(under)))),
            median: median(ratios),
            spread,
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calm, under, median, spread: (least, most) } = self;
        write!(f, "{calm:>5.2} > {under:>6.2} {median:>5.1} ({least:>3.1}-{most:>4.1})")
    }
}

/// The attacking process, which ends with its standard input.
struct Attacker(Child);

impl Attacker {
    fn start(attack: Attack, server: &Server, core: Option<usize>) -> io::Result<Self> {
        let mut command = Command::from(command(&Place { core, is_first: false }, std::env::current_exe()?));
        command.args(["attack", &attack.name(), "--server", &server.address.to_string()]);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?))
    }

    async fn stop(mut self) -> io::Result<u64> {
        drop(self.0.stdin.take());
        let output = timeout(Duration::from_secs(20), self.0.wait_with_output()).await??;
        String::from_utf8_lossy(&output.stdout).trim().parse().map_err(io::Error::other)
    }
}
