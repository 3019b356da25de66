//! The matrix products of `tpgm bench` in meganeura, as a peer of benches/compare: it prints `workload median_ms min_ms`.
//!
//! ```text
//! meganeura-bench [--precision f32|auto] [--seconds S] WORKLOAD...
//! ```
//!
//! f32 forbids cooperative matrices; auto lets meganeura use those that it uses by default. Its own tile search runs first.

use std::process::ExitCode;
use std::time::Instant;

use meganeura::runtime::{CoopPolicy, SessionOptions};
use meganeura::train::Mode;
use meganeura::{Graph, SessionConfig, build};

/// Name, rows, terms of a sum, columns.
const PRODUCTS: [(&str, usize, usize, usize); 5] = [
    ("matmul_512", 512, 512, 512),
    ("matmul_1024", 1024, 1024, 1024),
    ("matmul_2048", 2048, 2048, 2048),
    ("matmul_4096", 4096, 4096, 4096),
    ("matmul_vit", 8 * 197, 768, 3072),
];

/// Repeats that don't count.
const WARMUP: usize = 3;

/// Values in -1..1, none like its neighbours.
fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 61 * 11 + seed * 17) % 127) as f32 / 64.0 - 1.0).collect()
}

/// Median and shortest milliseconds of a product, of repeats for so many seconds, three at least.
fn time(m: usize, k: usize, n: usize, coop: CoopPolicy, seconds: f64) -> Result<(f64, f64), String> {
    let mut graph = Graph::new();
    let a = graph.input("a", &[m, k]);
    let b = graph.parameter("b", &[k, n]);
    let out = graph.matmul(a, b);
    graph.set_outputs(vec![out]);
    let config = SessionConfig {
        mode: Mode::Inference,
        runtime: SessionOptions { coop, ..SessionOptions::default() },
        tune: true,
        ..SessionConfig::default()
    };
    let mut session = build(&graph, config).0;
    let (a, b) = (values(m * k, 1), values(k * n, 2));
    session.set_input("a", &a);
    session.set_parameter("b", &b);
    for _ in 0..WARMUP {
        session.step();
        session.wait();
    }
    let got = f64::from(session.read_output(m * n)[n + 1]);
    let want: f64 = (0..k).map(|i| f64::from(a[k + i]) * f64::from(b[i * n + 1])).sum();
    let largest = k as f64 / 3.0;
    if (got - want).abs() > 1e-3 * largest {
        return Err(format!("the product is wrong: {got} instead of {want}"));
    }
    let (mut times, started) = (Vec::new(), Instant::now());
    while times.len() < 3 || (times.len() < 1000 && started.elapsed().as_secs_f64() < seconds) {
        let begun = Instant::now();
        session.step();
        session.wait();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let middle = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    Ok((middle, times[0]))
}

fn run() -> Result<(), String> {
    let (mut coop, mut seconds, mut names) = (CoopPolicy::Disabled, 5.0, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--precision" => {
                coop = match value()?.as_str() {
                    "f32" => CoopPolicy::Disabled,
                    "auto" => CoopPolicy::Auto,
                    other => return Err(format!("--precision {other}: there are f32 and auto")),
                }
            }
            "--seconds" => seconds = value()?.parse().map_err(|e| format!("--seconds: {e}"))?,
            _ => names.push(arg),
        }
    }
    if names.is_empty() {
        return Err("usage: meganeura-bench [--precision f32|auto] [--seconds S] WORKLOAD...".into());
    }
    for name in names {
        let known = PRODUCTS.map(|p| p.0).join(", ");
        let product = PRODUCTS.iter().find(|p| p.0 == name);
        let (_, m, k, n) = *product.ok_or_else(|| format!("unknown workload {name}: there are {known}"))?;
        let (median, min) = time(m, k, n, coop, seconds).map_err(|e| format!("{name}: {e}"))?;
        println!("{name} {median:.4} {min:.4}");
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
