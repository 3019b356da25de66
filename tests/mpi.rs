//! Ranks that `mpirun` starts: this program again, once for each rank, as an actor in a scene.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use tpgm::error::Error;
use tpgm::random::Random;
use tpgm::ranks::launch::{end, start};
use tpgm::ranks::{Failure, Ranks, agree, same};

/// Which scene a rank plays.
const SCENE: &str = "TPGM_TEST_SCENE";
/// Longer than any scene takes.
const HANGS: Duration = Duration::from_secs(100);
/// "Within seconds", on a machine that does other things too.
const SOON: Duration = Duration::from_secs(20);

type Played = Result<(), Error>;

fn main() {
    if let Ok(scene) = std::env::var(SCENE) {
        std::process::exit(play(&scene).into());
    }
    let trials: [(&str, fn()); 16] = [
        ("sums_are_those_of_the_order_of_ranks", || well(&[1, 2, 3], "sums")),
        ("gathers_have_any_length", || well(&[2, 3], "gathers")),
        ("large_sums_overlap", || well(&[2], "large")),
        ("ranks_know_their_places", || well(&[3], "places")),
        ("what_was_begun_may_be_dropped", || well(&[2, 3], "dropped")),
        ("a_killed_rank_ends_all", a_killed_rank_ends_all),
        ("a_rank_that_panics_ends_all", a_rank_that_panics_ends_all),
        ("an_error_of_one_rank_is_said_once", an_error_of_one_rank_is_said_once),
        ("a_busy_rank_0_is_not_waited_for", a_busy_rank_0_is_not_waited_for),
        ("an_error_of_all_ranks_is_said_once", an_error_of_all_ranks_is_said_once),
        ("an_error_before_the_start_is_agreed_on", an_error_before_the_start_is_agreed_on),
        ("other_ranks_with_something_else_are_refused", other_ranks_with_something_else_are_refused),
        ("a_silent_rank_is_given_up", a_silent_rank_is_given_up),
        ("a_rank_that_never_ends_is_given_up", a_rank_that_never_ends_is_given_up),
        ("a_stop_waits_for_the_state", a_stop_waits_for_the_state),
        ("who_is_alone_is_told", who_is_alone_is_told),
    ];
    let trials = trials.map(|(name, run)| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    });
    let mut args = Arguments::from_args();
    // They wait more than they work.
    args.test_threads = args.test_threads.or(Some(3));
    libtest_mimic::run(&args, trials.into()).exit();
}

/// How a scene ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
    took: Duration,
}

impl Ended {
    /// Lines of errors, without what the launcher says.
    fn errors(&self) -> Vec<&str> {
        self.err.lines().filter(|line| line.starts_with("error: ") || line.starts_with("stopped ")).collect()
    }

    fn says(&self, code: i32, line: &str) {
        assert_eq!((self.code, self.errors()), (Some(code), vec![line]), "{self:?}");
    }
}

/// Plays a scene by a command that starts this program.
fn by(command: &mut Command, scene: &str, vars: &[(&str, &str)]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(dir.path().join(name)).unwrap();
    command.env(SCENE, scene).envs(vars.iter().copied());
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let begun = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e} (tools/setup.sh test installs it)"));
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if begun.elapsed() > HANGS {
            // SIGTERM: mpirun ends its processes.
            Command::new("kill").arg(child.id().to_string()).status().unwrap();
            child.wait().unwrap();
            panic!("{scene} hangs: {}", std::fs::read_to_string(dir.path().join("err")).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let read = |name: &str| String::from_utf8_lossy(&std::fs::read(dir.path().join(name)).unwrap()).into_owned();
    Ended { code, out: read("out"), err: read("err"), took: begun.elapsed() }
}

fn this() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

/// Plays a scene with so many ranks.
fn on(size: usize, scene: &str, vars: &[(&str, &str)]) -> Ended {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &size.to_string()]);
    by(command.arg(this()), scene, vars)
}

/// Every rank plays the scene to its end.
fn well(sizes: &[usize], scene: &str) {
    for size in sizes {
        let ended = on(*size, scene, &[]);
        assert_eq!(ended.code, Some(0), "{size} ranks: {ended:?}");
        let all = (0..*size).map(|rank| format!("rank {rank} of {size} is well"));
        all.for_each(|line| assert!(ended.out.contains(&line), "{line} is missing: {ended:?}"));
    }
}

fn host() -> String {
    let out = Command::new("uname").arg("-n").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().into()
}

fn a_killed_rank_ends_all() {
    let ended = on(3, "killed", &[]);
    assert!(ended.code != Some(0) && ended.took < SOON, "{ended:?}");
    assert!(!ended.out.contains("well"), "{ended:?}");
    assert!(ended.err.contains("signal 9"), "{ended:?}");
}

fn a_rank_that_panics_ends_all() {
    let ended = on(2, "panics", &[]);
    assert!(ended.code == Some(101) && ended.took < SOON, "{ended:?}");
    assert!(!ended.out.contains("well") && ended.err.contains("a bug"), "{ended:?}");
}

fn an_error_of_one_rank_is_said_once() {
    let line = format!("error: rank 2 on {}: no room", host());
    // The others hear of it and end too: MPI does not have to end them, unless they don't run for two seconds.
    let ends_them = || {
        let ended = on(3, "errs", &[]);
        ended.says(1, &line);
        assert!(ended.took < SOON, "{ended:?}");
        ended.err.contains("MPI_ABORT")
    };
    assert!((0..3).any(|_| !ends_them()), "the others never hear of it");
}

fn a_busy_rank_0_is_not_waited_for() {
    let line = format!("error: rank 1 on {}: no room", host());
    let ended = on(2, "busy", &[]);
    ended.says(1, &line);
    assert!(ended.took < SOON, "{ended:?}");
}

fn an_error_of_all_ranks_is_said_once() {
    on(3, "all_err", &[]).says(2, "error: the loss is not a number");
}

fn an_error_before_the_start_is_agreed_on() {
    let line = format!("error: rank 1 on {}: no such file: look for it", host());
    on(3, "agree", &[]).says(2, &line);
}

fn other_ranks_with_something_else_are_refused() {
    let h = host();
    let line = format!(
        "error: rank 2 on {h} differs from rank 0 on {h} in its model: c0ffee instead of abba; all ranks need the same"
    );
    on(3, "same", &[]).says(2, &line);
}

fn a_silent_rank_is_given_up() {
    let line =
        format!("error: nothing has come from rank 1 on {} for 1 s (TPGM_RANK_TIMEOUT=SECONDS waits longer)", host());
    let ended = on(2, "silent", &[("TPGM_RANK_TIMEOUT", "1")]);
    ended.says(1, &line);
    assert!(ended.took < SOON, "{ended:?}");
    on(2, "places", &[("TPGM_RANK_TIMEOUT", "soon")])
        .errors()
        .iter()
        .for_each(|line| assert!(line.contains("TPGM_RANK_TIMEOUT=soon: it must be a number of seconds"), "{line}"));
}

fn a_rank_that_never_ends_is_given_up() {
    let h = host();
    let line = format!(
        "error: rank 0 on {h}: at its end, nothing has come from rank 1 on {h} for 1 s (TPGM_RANK_TIMEOUT=SECONDS waits longer)"
    );
    on(2, "never_ends", &[("TPGM_RANK_TIMEOUT", "1")]).says(1, &line);
}

/// Rank 0 writes it for longer than a failed rank would be waited for.
fn a_stop_waits_for_the_state() {
    let ended = on(2, "stopped", &[]);
    ended.says(143, "stopped by SIGTERM; saved");
    assert!(ended.out.contains("the state is written"), "{ended:?}");
}

/// Without others, the program is the one that it would be without MPI; with others that MPI does not know of, it does not begin.
fn who_is_alone_is_told() {
    let one = on(1, "alone", &[]);
    assert!(one.code == Some(0) && one.out.contains("alone"), "{one:?}");
    let two = on(2, "alone", &[("TPGM_MPI", "off")]);
    assert!(two.code == Some(0) && two.out.matches("alone").count() == 2, "{two:?}");
    let none = by(&mut Command::new(this()), "alone", &[]);
    assert!(none.code == Some(0) && none.out.contains("alone"), "{none:?}");
    let forced = by(&mut Command::new(this()), "alone", &[("TPGM_MPI", "on")]);
    assert!(forced.code == Some(0) && forced.out.contains("alone"), "{forced:?}");
    // As another MPI's mpiexec, or srun without PMIx, would start it.
    let other = by(&mut Command::new(this()), "alone", &[("PMI_SIZE", "2"), ("PMI_RANK", "0")]);
    assert_eq!((other.code, other.errors().len()), (Some(2), 1), "{other:?}");
    let line = other.errors()[0];
    assert!(line.starts_with("error: mpiexec started 2 processes, but each finds itself alone in the MPI"), "{line}");
    assert!(line.contains("TPGM_MPI=off"), "{line}");
}

/// One rank's part in a scene; its exit code.
fn play(scene: &str) -> u8 {
    let mut kept = None;
    let played = start().and_then(|ranks| match ranks {
        None => {
            // One rank plays a scene that is not about several.
            println!("alone\nrank 0 of 1 is well");
            Ok(())
        }
        Some(ranks) => {
            kept = Some(ranks.clone());
            act(scene, &*ranks).map(|()| println!("rank {} of {} is well", ranks.rank(), ranks.size()))
        }
    });
    let advice = |error: &Error| if error.to_string() == "no such file" { ": look for it" } else { "" };
    let failure = played.err().map(|error| Failure::new(&error, format!("{error}{}", advice(&error))));
    let code = end(failure, |line| eprintln!("{line}"));
    // Who keeps the ranks can't use them any more.
    if let Some(ranks) = kept {
        assert_eq!(ranks.gather(&[]).unwrap_err().to_string(), "MPI: it has ended");
        assert!(ranks.start_sum(vec![1.0]).is_err());
    }
    code
}

fn act(scene: &str, ranks: &dyn Ranks) -> Played {
    let (rank, size) = (ranks.rank(), ranks.size());
    let sleep = |seconds| std::thread::sleep(Duration::from_secs(seconds));
    match scene {
        "sums" => sums(ranks),
        "gathers" => gathers(ranks),
        "large" => large(ranks),
        "dropped" => dropped(ranks),
        "places" => {
            // All are on this machine.
            assert_eq!(ranks.local_rank(), rank);
            assert_eq!(ranks.name(rank), format!("rank {rank} on {}", host()));
            let again = start()?.expect("it has begun");
            assert_eq!((again.rank(), again.size()), (rank, size));
            Ok(())
        }
        "killed" => {
            ranks.sum(vec![1.0; 10])?;
            if rank == 1 {
                Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
            }
            ranks.sum(vec![1.0; 1_000_000]).map(drop)
        }
        "panics" if rank == 1 => panic!("a bug"),
        "errs" if rank == 2 => Err(Error::Train("no room".into())),
        "busy" if rank == 1 => Err(Error::Train("no room".into())),
        "busy" => {
            sleep(60);
            Ok(())
        }
        "silent" if rank == 1 => {
            sleep(60);
            Ok(())
        }
        "never_ends" if rank == 1 => {
            sleep(60);
            Ok(())
        }
        "never_ends" => Ok(()),
        "errs" | "silent" | "panics" => ranks.sum(vec![1.0; 1000]).map(drop),
        "all_err" => {
            ranks.sum(vec![1.0; 1000])?;
            Err(Error::Usage("the loss is not a number".into()))
        }
        "agree" => {
            let own = if rank > 0 { Err(Error::Usage("no such file".into())) } else { Ok(()) };
            agree(ranks, own)
        }
        "same" => {
            let model = if rank == 2 { "c0ffee" } else { "abba" };
            same(ranks, &[("version", "1"), ("model", model), ("data", &format!("{rank}"))])
        }
        "stopped" => {
            if rank == 0 {
                sleep(5);
                println!("the state is written");
            }
            Err(Error::Stopped { signal: 15, what: "stopped by SIGTERM; saved".into() })
        }
        other => panic!("there is no scene {other}"),
    }
}

/// What `rank` adds as its `number`-th sum: also what no order of adding leaves alone.
fn values(rank: usize, number: usize, len: usize) -> Vec<f32> {
    let mut random = Random::new((1000 * rank + number) as u64);
    let scales = [1e-6, 1e-3, 1.0, 1e3];
    let mut values: Vec<f32> = (0..len).map(|_| random.value() * scales[(random.bits() % 4) as usize]).collect();
    if len > 6 {
        values[..3].copy_from_slice(&[-0.0, f32::MIN_POSITIVE / 2.0, if rank == 1 { f32::NAN } else { 1.0 }]);
    }
    values
}

/// The sums of all ranks' values in the order of ranks.
fn expected(size: usize, number: usize, len: usize) -> Vec<u32> {
    let mut sums = vec![0f32; len];
    for rank in 0..size {
        sums.iter_mut().zip(values(rank, number, len)).for_each(|(sum, value)| *sum += value);
    }
    sums.into_iter().map(f32::to_bits).collect()
}

fn check(size: usize, number: usize, sums: &[f32]) {
    let wrong = sums.iter().zip(expected(size, number, sums.len())).position(|(sum, want)| sum.to_bits() != want);
    assert_eq!(wrong, None, "sum {number} of {} values on {size} ranks", sums.len());
}

const LENS: [usize; 8] = [1_000_003, 0, 7, 1, 1000, 64, 2, 31];

fn sums(ranks: &dyn Ranks) -> Played {
    let size = ranks.size();
    for (number, len) in LENS.into_iter().enumerate() {
        let sums = ranks.sum(values(ranks.rank(), number, len))?;
        assert_eq!(sums.len(), len);
        check(size, number, &sums);
    }
    // Several under way, taken in an order of its own by each rank, with gathers in between.
    for round in 0..5 {
        let mut under_way = Vec::new();
        for (number, len) in LENS.into_iter().enumerate() {
            under_way.push((number, ranks.start_sum(values(ranks.rank(), number, len))?));
            for (_, sum) in &mut under_way {
                sum.advance()?;
            }
        }
        let told = ranks.gather(&[round as u8])?;
        assert_eq!(told, vec![vec![round as u8]; size]);
        let turn = (round + 3 * ranks.rank()) % under_way.len();
        under_way.rotate_left(turn);
        for (number, mut sum) in under_way {
            if round % 2 == 0 {
                while !sum.advance()? {
                    std::thread::yield_now();
                }
            }
            check(size, number, &sum.wait()?);
        }
    }
    // Each rank asks after another sum, and after no other: that has to move all of them on.
    let begun = LENS.into_iter().enumerate().take(size);
    let sums = begun.map(|(number, len)| ranks.start_sum(values(ranks.rank(), number, len)));
    let mut sums = sums.collect::<Result<Vec<_>, _>>()?;
    while !sums[ranks.rank()].advance()? {
        std::thread::yield_now();
    }
    for (number, sum) in sums.into_iter().enumerate() {
        check(size, number, &sum.wait()?);
    }
    Ok(())
}

/// Many sums of a segment's length, begun before the first is waited for, on ranks that come at other times.
fn large(ranks: &dyn Ranks) -> Played {
    let len = 1 << 20;
    let mut under_way = Vec::new();
    for number in 0..8 {
        let values = values(ranks.rank(), number, len);
        if number % 3 == ranks.rank() {
            std::thread::sleep(Duration::from_millis(30));
        }
        under_way.push(ranks.start_sum(values)?);
    }
    for (number, sum) in under_way.into_iter().enumerate() {
        check(ranks.size(), number, &sum.wait()?);
    }
    Ok(())
}

/// A rank that does not wait for a sum still adds up its part for the others.
fn dropped(ranks: &dyn Ranks) -> Played {
    for (number, len) in LENS.into_iter().enumerate() {
        let sum = ranks.start_sum(values(ranks.rank(), number, len))?;
        if number % ranks.size() != ranks.rank() {
            check(ranks.size(), number, &sum.wait()?);
        }
    }
    ranks.gather(&[]).map(drop)
}

fn gathers(ranks: &dyn Ranks) -> Played {
    // Around the length that the first message has room for, and without anything.
    let lens = [0, 1, 4087, 4088, 4089, 100_003, 8, 0, 3_000_000];
    for first in 0..lens.len() {
        let told = |rank: usize| {
            let len = lens[(first + rank) % lens.len()];
            (0..len).map(|i| (i * 7 + rank * 13 + first) as u8).collect::<Vec<u8>>()
        };
        let all = ranks.gather(&told(ranks.rank()))?;
        assert_eq!(all.len(), ranks.size());
        for (rank, one) in all.iter().enumerate() {
            assert!(*one == told(rank), "{} bytes of rank {rank}", one.len());
        }
    }
    Ok(())
}
