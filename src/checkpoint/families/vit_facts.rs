//! What the tensors of a vision transformer don't tell, or only between them: layer norm's eps, activation, heads.

use super::tensors::{ASSUMED, first, misfit};
use super::vit::{Reader, Sources};
use crate::checkpoint::timm_config::usual_heads;
use crate::checkpoint::{Note, OVERRIDE};
use crate::error::{Help, Result, Setting};
use crate::shapes::Activation;

impl Reader<'_> {
    pub(super) fn eps(&self, notes: &mut Vec<Note>, sources: &mut Sources) -> Result<f32> {
        let dialect = self.dialect;
        let said = [(self.own.eps, "metadata tpgm.eps"), (dialect.facts.eps()?, dialect.facts.file())];
        if let Some(eps) = first(said, sources, "eps") {
            return Ok(eps);
        }
        sources.insert("eps", if dialect.eps_noted { ASSUMED.into() } else { format!("every {}'s", dialect.name) });
        if dialect.eps_noted {
            let what = format!("layer norm eps assumed: {:e}, as {}'s models have", dialect.eps, dialect.whose);
            notes.push(what.into());
        }
        Ok(dialect.eps)
    }

    pub(super) fn activation(&self, notes: &mut Vec<Note>, sources: &mut Sources) -> Result<Activation> {
        let facts = &self.dialect.facts;
        let told = self.dialect.told.unzip();
        let said = [
            (self.overrides.activation, OVERRIDE),
            (self.own.activation, "metadata tpgm.activation"),
            (facts.activation()?, facts.file()),
            (told.0, told.1.unwrap_or_default()),
        ];
        match first(said, sources, "activation") {
            Some(gated @ (Activation::SwiGlu | Activation::GeGlu)) => {
                let what = match gated {
                    Activation::GeGlu => "geglu needs MLPs with two first layers behind a norm of their own",
                    _ => "swiglu needs an mlp.fc1 with twice as many outputs as mlp.fc2 has inputs",
                };
                return Err(match self.overrides.activation {
                    Some(_) => misfit(Setting::Activation, what),
                    None => self.tensors.checkpoint.error(format!("metadata tpgm.activation: {what}")),
                });
            }
            Some(known) => return Ok(known),
            None => {}
        }
        let Some((usual, whose)) = self.dialect.activation else {
            let what = "its activation can't be told: some of these models have QuickGELU, some GELU, and the tensors are \
                        the same";
            return Err(self.tensors.checkpoint.error(what).with_help(Help::Activation));
        };
        sources.insert("activation", ASSUMED.into());
        let what = match usual {
            Activation::Gelu => "GELU with erf",
            Activation::GeluTanh => "GELU with tanh",
            Activation::QuickGelu => "QuickGELU",
            Activation::SwiGlu => "SwiGLU",
            Activation::GeGlu => "GEGLU",
        };
        let what = format!("activation assumed: {what}, as {whose} have");
        notes.push(Note { what, settings: &[Setting::Activation] });
        Ok(usual)
    }

    /// Width of the MLPs' hidden layers, and whether one half of their first layers' outputs gates the other, which the
    /// shapes tell: then the second layer has half as many inputs.
    pub(super) fn mlp(&self) -> Result<(usize, bool)> {
        let tensors = self.tensors;
        if tensors.any(".mlp.fc1_g.weight") || tensors.any(".mlp.fc1_x.weight") {
            return Ok((tensors.dims::<2>("blocks.0.mlp.fc1_g.weight", "[mlp_dim, dim]")?[0], true));
        }
        if tensors.any(".mlp_out_proj.weight") {
            return Ok((tensors.dims::<2>("blocks.0.mlp_out_proj.weight", "[dim, mlp_dim]")?[1], false));
        }
        let [rows, _] = tensors.dims("blocks.0.mlp.fc1.weight", "[mlp_dim, dim]")?;
        let second = tensors.by_name.get("blocks.0.mlp.fc2.weight").map(|info| info.shape.as_slice());
        match second {
            Some(&[_, inputs]) if inputs > 0 && inputs.checked_mul(2) == Some(rows) => Ok((inputs, true)),
            _ => Ok((rows, false)),
        }
    }

    /// The activation of gated MLPs. timm and transformers have these with SiLU alone.
    pub(super) fn gate(&self, sources: &mut Sources) -> Result<Activation> {
        let other = |said: Option<Activation>| said.filter(|said| *said != Activation::SwiGlu).is_some();
        let what = "its MLPs are gated, by the shapes of mlp.fc1 and mlp.fc2: the activation is swiglu";
        if other(self.overrides.activation) {
            return Err(misfit(Setting::Activation, what));
        }
        if other(self.own.activation) {
            return Err(self.tensors.checkpoint.error(format!("metadata tpgm.activation: {what}")));
        }
        self.dialect.facts.check_gate()?;
        sources.insert("activation", "tensor shapes".into());
        Ok(Activation::SwiGlu)
    }

    /// The activation of MLPs that a norm of their own and two first layers tell: ViTamin's.
    pub(super) fn gelu_gate(&self, sources: &mut Sources) -> Result<Activation> {
        let other = |said: Option<Activation>| said.filter(|said| *said != Activation::GeGlu).is_some();
        let what = "its MLPs are gated by GELU, as their tensors tell: the activation is geglu";
        if other(self.overrides.activation) {
            return Err(misfit(Setting::Activation, what));
        }
        if other(self.own.activation) {
            return Err(self.tensors.checkpoint.error(format!("metadata tpgm.activation: {what}")));
        }
        if self.dialect.facts.activation()?.is_some_and(|act| act != Activation::Gelu) {
            let file = self.dialect.facts.file();
            return Err(self.tensors.checkpoint.error(format!("{what}; {file} says another one")));
        }
        sources.insert("activation", "tensor names".into());
        Ok(Activation::GeGlu)
    }

    pub(super) fn heads(&self, dim: usize, notes: &mut Vec<Note>, sources: &mut Sources) -> Result<usize> {
        let checkpoint = self.tensors.checkpoint;
        let fits = |heads: usize| heads > 0 && dim.is_multiple_of(heads);
        if let Some(heads) = self.overrides.heads {
            sources.insert("heads", OVERRIDE.into());
            let wrong = || misfit(Setting::Heads, format!("{heads} heads do not divide the model's width {dim}"));
            return fits(heads).then_some(heads).ok_or_else(wrong);
        }
        let written = match self.own.heads {
            Some(heads) => Some((heads, "metadata tpgm.heads".to_string())),
            None => self.dialect.facts.heads()?,
        };
        if let Some((heads, place)) = written {
            let wrong = || {
                let what = format!("{heads} heads ({place}) do not divide the width {dim}");
                checkpoint.error(what).with_help(Help::Heads)
            };
            let own = self.own.heads.is_some();
            let file = self.dialect.facts.file();
            sources.insert("heads", if own { place.clone() } else { format!("{file}, {place}") });
            return fits(heads).then_some(heads).ok_or_else(wrong);
        }
        let Some(heads) = usual_heads(dim) else {
            let what = format!("its width {dim} is no multiple of 64, so the number of heads can't be told");
            return Err(checkpoint.error(what).with_help(Help::Heads));
        };
        sources.insert("heads", ASSUMED.into());
        let whose = self.dialect.whose;
        let what = format!("heads assumed: {heads}, as {whose}'s models of width {dim} have");
        notes.push(Note { what, settings: &[Setting::Heads] });
        Ok(heads)
    }
}
