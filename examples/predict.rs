//! Names what a model sees in an image:
//! `cargo run --release --example predict -- assets/vit-emoji.safetensors IMAGE`

use tpgm::prelude::*;

/// The class of the image `args[1]` by the model `args[0]`, and its logit.
pub fn run(args: &[String]) -> Result<(String, f32)> {
    let [model, image] = args else {
        return Err(Error::Usage("usage: predict MODEL IMAGE".into()));
    };
    let source = Source::open(model.as_ref(), &Overrides::default())?;
    let gpu = Gpu::open(None, false)?;
    let mut predictor = Predictor::new(&gpu, source.model(), &source.snapshot(), 1)?;
    let pixels = source.recognised.preprocess.apply(&decode(image)?);
    let logits = predictor.logits(&pixels, 1)?;
    let best = source.classes()?.into_iter().zip(logits).max_by(|a, b| a.1.total_cmp(&b.1));
    best.ok_or_else(|| Error::Usage("the model has no classes".into()))
}

#[allow(dead_code)] // the tests call `run`
fn main() -> std::process::ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok((class, logit)) => println!("{class} (logit {logit:.2})"),
        Err(e) => {
            eprintln!("error: {e}");
            return e.exit_code().into();
        }
    }
    std::process::ExitCode::SUCCESS
}
