//! Heads from class names: each class gets the mean of what a text tower makes of sentences with its name (Radford et al. 2021,
//! section 3.1.4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::checkpoint::text::{TextTower, TokenizerKind};
use crate::checkpoint::{self, Checkpoint, TextOverrides, Values, write_safetensors};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Program};
use crate::model::text::TextConfig;
use crate::model::{Activations, Mode, Network, Phase, Precision};
use crate::ops::Recorder;
use crate::shapes::ParamLayout;
use crate::stop;
use crate::text::{Clean, TOKENIZER, Templates, Tokenizer, check_names};
use crate::train::events::Event;
use crate::train::source::Source;

/// Texts that pass through the tower at once.
const BATCH: usize = 64;
/// Tokens of OpenAI's vocabulary, by which a model without a tokenizer is taken to have it.
const OPENAI_VOCABULARY: usize = 49_408;
/// Names that a message lists.
const NAMED: usize = 3;

/// A head from text features.
#[derive(Clone, Debug, PartialEq)]
pub struct TextHead {
    /// Class names, by output.
    pub classes: Vec<String>,
    /// Length of the features.
    pub features: usize,
    /// `[classes, features]`: the unit means times the model's scale.
    pub weight: Vec<f32>,
    /// What the model adds to every logit, if it does.
    pub bias: Option<f32>,
}

/// What sentences are made of and cut by.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// The sentences.
    pub templates: Templates,
    /// The tokenizer's file, if it does not stand beside the model.
    pub tokenizer: Option<PathBuf>,
}

/// What building a head tells on the way.
#[derive(Debug)]
pub enum Told<'a> {
    /// One sentence.
    Note(&'a str),
    /// Sentences that are done, of how many.
    Done(usize, usize),
}

impl From<Told<'_>> for Event {
    fn from(told: Told) -> Event {
        match told {
            Told::Note(what) => Event::Note(what.into()),
            Told::Done(done, of) => Event::Evaluating { name: "class names".into(), done, of },
        }
    }
}

impl TextHead {
    /// Of `names`, by the text tower of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] as [`checkpoint::text_tower`], for a tokenizer that is missing or does not fit; [`Error::Usage`] for names that are
    /// empty or there twice.
    pub fn new(
        gpu: &Gpu,
        checkpoint: &Checkpoint,
        overrides: &TextOverrides,
        prompts: &Prompts,
        names: &[String],
        tell: &mut dyn FnMut(Told),
    ) -> Result<TextHead> {
        check_names(names).map_err(|what| Error::Usage(format!("class names: {what}")))?;
        let tower = checkpoint::text_tower(checkpoint, overrides)?;
        let tokenizer = tokenizer(checkpoint, &tower, prompts.tokenizer.as_deref(), tell)?;
        tower.notes.iter().for_each(|note| tell(Told::Note(&note.what)));
        let count = prompts.templates.count();
        let texts: Vec<String> = names.iter().flat_map(|name| prompts.templates.sentences(name)).collect();
        let tokens = tokenizer.encode(&texts)?;
        if let Some(note) = cut_note(names, &tokens.cut, count, tower.config.context) {
            tell(Told::Note(&note));
        }
        let features = text_features(gpu, checkpoint, &tower, &tokens.ids, &mut |done, of| tell(Told::Done(done, of)))?;
        let (width, scale) = (tower.config.features(), f64::from(tower.logit_scale).exp());
        let class = |rows: &[f32]| {
            let mut sum = vec![0f64; width];
            for row in rows.chunks(width) {
                sum.iter_mut().zip(unit(row.iter().map(|x| f64::from(*x)))).for_each(|(sum, x)| *sum += x);
            }
            unit(sum.into_iter()).map(|x| (scale * x) as f32).collect::<Vec<_>>()
        };
        let weight: Vec<f32> = features.chunks(count * width).flat_map(class).collect();
        if weight.iter().any(|x| !x.is_finite()) {
            return Err(
                checkpoint.error("its text tower makes features that are not finite numbers: its weights are damaged")
            );
        }
        Ok(TextHead { classes: names.to_vec(), features: width, weight, bias: tower.logit_bias })
    }

    /// Writes it as a head for `--head`: `weight` `[classes, features]`, `bias` `[classes]` if the model has one, class names in the
    /// metadata.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bias = self.bias.map(|bias| vec![bias; self.classes.len()]);
        let mut tensors =
            vec![("weight".to_string(), vec![self.classes.len(), self.features], Values::F32(&self.weight))];
        if let Some(bias) = &bias {
            tensors.push(("bias".to_string(), vec![bias.len()], Values::F32(bias)));
        }
        let metadata = BTreeMap::from([("classes".to_string(), json!(self.classes).to_string())]);
        write_safetensors(path, &tensors, &metadata)
    }
}

/// `row` at unit length.
fn unit(row: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    let row: Vec<f64> = row.collect();
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    row.into_iter().map(move |x| x / norm)
}

/// What to tell of the texts at the places `cut`, `count` for each name.
fn cut_note(names: &[String], cut: &[usize], count: usize, context: usize) -> Option<String> {
    let mut classes: Vec<usize> = cut.iter().map(|text| text / count).collect();
    classes.dedup();
    let some: Vec<String> = classes.iter().take(NAMED).map(|class| format!("{:.40}", names[*class])).collect();
    let more = if classes.len() > NAMED { ", ..." } else { "" };
    (!some.is_empty()).then(|| {
        let of = classes.len();
        format!("class names too long for the {context} tokens of a text are cut: {of}, {}{more}", some.join(", "))
    })
}

/// What cuts texts into tokens for `tower`: the file `given`, or what belongs to the model.
///
/// # Errors
/// [`Error::Checkpoint`] where the file is missing, is no tokenizer or has more tokens than the tower.
pub fn tokenizer(
    checkpoint: &Checkpoint,
    tower: &TextTower,
    given: Option<&Path>,
    tell: &mut dyn FnMut(Told),
) -> Result<Tokenizer> {
    let (context, beside) = (tower.config.context, checkpoint.path().with_file_name(TOKENIZER));
    let fallback = (Clean::Nothing, None, None, false);
    let (clean, pad, pad_id, left) = match &tower.tokenizer {
        TokenizerKind::OpenAi(clean) if given.is_none() => {
            let of = tower.config.vocabulary;
            if of < OPENAI_VOCABULARY {
                let what = format!(
                    "its text tower has {of} tokens, OpenAI's vocabulary {OPENAI_VOCABULARY}: give its own tokenizer.json with --tokenizer"
                );
                return Err(Error::checkpoint(checkpoint.path(), what));
            }
            return Ok(Tokenizer::openai(*clean, context));
        }
        TokenizerKind::OpenAi(_) => fallback,
        TokenizerKind::File { clean, pad, pad_id, left } => (*clean, pad.as_deref(), *pad_id, *left),
    };
    let path = given.unwrap_or(&beside);
    if given.is_none() && !path.is_file() {
        if tower.config.vocabulary == OPENAI_VOCABULARY {
            let what =
                format!("{TOKENIZER} is not beside the model: OpenAI's vocabulary is used, which has as many tokens");
            tell(Told::Note(&what));
            return Ok(Tokenizer::openai(Clean::Lower, context));
        }
        let what = "is missing, which cuts texts into tokens: download it from the page of the model on the Hugging Face hub, and \
                    put it beside the weights or give it with --tokenizer";
        return Err(Error::checkpoint(path, what));
    }
    let tokenizer = Tokenizer::open(path, clean, context, (pad, pad_id), left)?;
    let (has, of) = (tokenizer.vocabulary(), tower.config.vocabulary);
    if has > of {
        let what = format!("numbers {has} tokens, the text tower has {of}: this tokenizer belongs to another model");
        return Err(Error::checkpoint(path, what));
    }
    Ok(tokenizer)
}

/// What `tower` makes of texts, `[texts, features]`; `ids` `[texts, context]` are below its vocabulary.
///
/// # Errors
/// As [`checkpoint::weights`], and where the device fails.
pub fn text_features(
    gpu: &Gpu,
    checkpoint: &Checkpoint,
    tower: &TextTower,
    ids: &[u32],
    tell: &mut dyn FnMut(usize, usize),
) -> Result<Vec<f32>> {
    let mut weights = checkpoint::text_weights(checkpoint, tower)?;
    // A table of all tokens may be larger than a binding; the texts have few of them.
    let mut used: Vec<u32> = ids.to_vec();
    used.sort_unstable();
    used.dedup();
    let dim = tower.config.dim;
    let table = &mut weights[0];
    assert!(table.0 == "token_embedding.weight" && used.last().is_some_and(|id| (*id as usize) < table.1[0]));
    table.2 = used.iter().flat_map(|id| &table.2[*id as usize * dim..(*id as usize + 1) * dim]).copied().collect();
    let config = TextConfig { vocabulary: used.len(), ..tower.config.clone() };
    let place: Vec<u32> = ids.iter().map(|id| used.partition_point(|own| own < id) as u32).collect();
    let ends = tower.ends(ids);

    let layout = ParamLayout::new(&config.parameters());
    let (w, stats) = (layout.arena(gpu, "weights of the text tower")?, ParamLayout::new(&[]).arena(gpu, "statistics")?);
    gpu.write(&w, &layout.pack(weights.iter().map(|weight| weight.2.as_slice())));
    let (texts, context) = (ends.len(), config.context);
    let acts = Activations::plan(gpu, &config, BATCH.min(texts), Mode::Infer, Precision::F32)?.allocate(gpu)?;
    let scratch = acts.scratch();
    let mut program: Option<(usize, Program)> = None;
    let mut features = Vec::with_capacity(texts * config.features());
    for first in (0..texts).step_by(BATCH) {
        stop::check()?;
        let batch = BATCH.min(texts - first);
        let (_, program) = match program.take().filter(|(size, _)| *size == batch) {
            Some(same) => program.insert(same),
            None => {
                let mut r = Recorder::new(gpu, &scratch);
                acts.forward(&config, &mut r, batch, &w, &stats, Phase::Eval)?;
                program.insert((batch, r.program))
            }
        };
        let tokens = acts.numbers(TextConfig::TOKENS, batch).expect("a text tower reads tokens");
        gpu.write(&tokens, &place[first * context..(first + batch) * context]);
        if let Some(view) = acts.numbers(TextConfig::ENDS, batch) {
            gpu.write(&view, &ends[first..first + batch]);
        }
        Program::run(gpu, &[], &[program])?;
        features.extend(gpu.read::<f32>(&acts.logits(batch))?);
        tell(first + batch, texts);
    }
    Ok(features)
}

impl Source {
    /// Takes `head` in place of the model's own, if it has one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] where its features are of another length than the model's, or the model has two heads.
    pub fn set_head(&mut self, head: &TextHead) -> Result<()> {
        let features = self.recognised.config.width();
        if head.features != features {
            let what = format!(
                "its text features are {} long, its image features {features}: a zero-shot head needs both in one space",
                head.features
            );
            return Err(self.checkpoint.error(what));
        }
        checkpoint::set_head(&mut self.recognised, &mut self.weights, &head.classes, &head.weight, head.bias)
            .map_err(|what| self.checkpoint.error(what))
    }
}
