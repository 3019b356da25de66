//! Runs one kernel: GELU of a few numbers. `cargo run --release --example kernel`

use tpgm::gpu::Program;
use tpgm::ops::{Recorder, gelu};
use tpgm::prelude::*;
use tpgm::shapes::Activation;

/// GELU of `values`.
pub fn run(values: &[f32]) -> Result<Vec<f32>> {
    let gpu = Gpu::open(None, false)?;
    let inp = gpu.upload("inp", values)?;
    let out = gpu.buffer("out", values.len())?;
    // The recorded dispatches may be run any number of times.
    let mut recorder = Recorder::new(&gpu, &out);
    gelu::forward(&mut recorder, &out, &inp, Activation::Gelu)?;
    Program::run(&gpu, &[], &[&recorder.program])?;
    gpu.read(&out)
}

#[allow(dead_code)] // the tests call `run`
fn main() -> std::process::ExitCode {
    match run(&[-2.0, -1.0, 0.0, 1.0, 2.0]) {
        Ok(values) => println!("{values:?}"),
        Err(e) => {
            eprintln!("error: {e}");
            return e.exit_code().into();
        }
    }
    std::process::ExitCode::SUCCESS
}
