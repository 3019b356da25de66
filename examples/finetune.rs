//! Fine-tunes with TPGM and reads the run's records. The first word is the run's folder, the others are flags of `finetune`:
//! `cargo run --release --example finetune -- runs/mine --model MODEL --train DIR --val DIR --epochs 5`

use tpgm::prelude::*;

/// The training losses of the run that `args` asks for.
pub fn run(args: &[String]) -> Result<Vec<f32>> {
    let Some((out, flags)) = args.split_first() else {
        return Err(Error::Usage("usage: finetune DIR --model MODEL --train DIR --val DIR ...".into()));
    };
    let config = Flags::parse(flags)?.resolve(None)?;
    let gpu = Gpu::open(None, false)?;
    let out = std::path::Path::new(out);
    train(&gpu, &config, out, Start { best: true, ..Start::default() }, &mut |event| {
        if let Event::Warning(text) = event {
            eprintln!("warning: {text}");
        }
    })?;
    let path = out.join("metrics.jsonl");
    let lines = std::fs::read_to_string(&path).map_err(|e| Error::io(path, "cannot read", e))?;
    let loss = |line: &str| match Metric::parse(line) {
        Ok(Metric::Step(step)) => step.train_loss,
        _ => None,
    };
    Ok(lines.lines().filter_map(loss).collect())
}

#[allow(dead_code)] // the tests call `run`
fn main() -> std::process::ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(losses) => println!("loss {:.3} at first, {:.3} at last", losses[0], losses[losses.len() - 1]),
        Err(e) => {
            eprintln!("error: {e}");
            return e.exit_code().into();
        }
    }
    std::process::ExitCode::SUCCESS
}
