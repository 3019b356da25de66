//! Projected gradient method with one radius for all tensors, given by the user: MARS-PGM, or L2-PGM (Gouk, Hospedales &
//! Pontil, ICLR 2021). After every step each tensor is projected onto its ball around the anchor.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::flag::positive;
use crate::gpu::Program;
use crate::method::active::Owned;
use crate::method::settings::Settings;
use crate::method::{Anchor, Around, Learner, Method, MethodArgs, Started};
use crate::model::Model;
use crate::ops::mars::Mars;

/// Its flags.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[group(skip)] // every method calls its flags so, and names of groups are unique
pub struct Flags {
    /// The radius of fixed-radius, for every tensor
    #[arg(long)]
    pub radius: Option<f32>,
}

/// The method.
#[derive(Debug)]
pub struct Rule;

impl Method for Rule {
    fn name(&self) -> &'static str {
        "fixed-radius"
    }

    fn flags(&self) -> &'static [&'static str] {
        &["radius", "norm", "exclude"]
    }

    fn check(&self, args: &MethodArgs) -> Result<()> {
        positive("radius", args.fixed_radius.radius.is_none_or(|radius| radius > 0.0 && radius.is_finite()))
    }

    fn validate(&self, args: &MethodArgs, _: &Settings) -> Result<()> {
        let missing = || Error::Usage("--method fixed-radius needs its --radius".into());
        args.fixed_radius.radius.map(|_| ()).ok_or_else(missing)
    }

    fn bytes(&self, args: &MethodArgs, model: &Model) -> u64 {
        model.layout().arena_bytes() + Mars::bytes(model.layout(), args.norm)
    }

    fn start(&self, args: &MethodArgs, learner: &Learner, anchor: &Anchor) -> Result<Started> {
        let w0 = anchor.upload(learner)?;
        let mars = Mars::new(learner.gpu, learner.model.layout(), args.norm, anchor.excluded)?;
        mars.hold(learner.gpu, args.fixed_radius.radius.expect("checked with the other flags"));
        let mut r = learner.recorder();
        mars.measure(&mut r, &learner.w, &w0)?;
        mars.apply(&mut r, &learner.w, &w0)?;
        Ok(Started::new(Around { before: Program::new(), after: r.program }, Owned((w0, mars))))
    }
}
