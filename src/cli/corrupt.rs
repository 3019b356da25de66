//! `tpgm corrupt`

use std::io::Cursor;
use std::path::{Path, PathBuf};

use clap::Args;
use image::ImageFormat;
use rayon::prelude::*;
use serde_json::json;

use crate::atomic::atomic_write;
use crate::cli::{look_at, print, print_json, say_summaries};
use crate::data::corrupt::{self, Corruption, CorruptionKind};
use crate::data::{CropMode, Dataset, Interpolation, Item, Preprocess, RgbImage, decode};
use crate::error::{Error, Result};
use crate::flag::word;
use crate::train::data_args::DataArgs;

/// Flags of `corrupt`.
#[derive(Args, Debug)]
pub(super) struct CorruptArgs {
    /// One image, or a folder with one folder per class
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder to write: of one image, it gets a page with all corruptions; for a data set KIND/SEVERITY/CLASS/FILE.png
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Which ones: KIND, KIND:SEVERITY or KIND:A..B, or all
    #[arg(long, value_name = "KIND[:SEVERITY]", num_args = 1.., default_value = "all")]
    corrupt: Vec<String>,
    /// Leave out images that can't be read, instead of stopping before any work
    #[arg(long)]
    skip_broken: bool,
    /// Decides what is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "PX", default_value_t = 224)]
    image_size: usize,
    /// Share of the resized image that the centre crop keeps
    #[arg(long, value_name = "SHARE", default_value_t = 0.875)]
    crop_pct: f64,
    /// center (shorter side, then crop) or squash (both sides)
    #[arg(long, default_value = "center", value_parser = word::<CropMode>)]
    crop_mode: CropMode,
    /// bilinear, bicubic or lanczos
    #[arg(long, default_value = "bilinear", value_parser = word::<Interpolation>)]
    interpolation: Interpolation,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: CorruptArgs) -> Result<()> {
    let corruptions = corrupt::parse(&args.corrupt, args.seed)?;
    let CorruptArgs { image_size, crop_pct, crop_mode, interpolation, .. } = args;
    // Nothing is normalised here.
    let (mean, std) = ([0.0; 3], [1.0; 3]);
    let preprocess = Preprocess { image_size, crop_pct, crop_mode, interpolation, mean, std, grey: false };
    preprocess.validate()?;
    if args.out.exists() {
        let what = "there is such a file or folder already: give a new one";
        return Err(Error::data(&args.out, what));
    }
    if args.data.is_dir() {
        let mut sets = [Dataset::open(&args.data, None)?];
        if sets[0].is_multi_label() {
            let what = "its images may have any number of labels, which are in a table: copies would lose them; see tpgm eval --corrupt";
            return Err(Error::data(&args.data, what));
        }
        let files = DataArgs { skip_broken: args.skip_broken, ..DataArgs::default() };
        let checked = look_at(&mut sets, &files)?;
        let [dataset] = sets;
        say_summaries([("data", &dataset)].into_iter(), &dataset.classes, &checked);
        copies(&dataset, &args.data, &preprocess, &corruptions, &args.out)?;
        let count = corruptions.len() * dataset.items.len();
        return match args.json {
            true => print_json(&json!({"out": args.out, "images": count})),
            false => print(&format!("{}: {count} images\n", args.out.display())),
        };
    }
    let page = page(&decode(&args.data)?, &preprocess, &corruptions, &args.out)?;
    match args.json {
        true => print_json(&json!({"out": args.out, "images": corruptions.len() + 1, "page": page})),
        false => print(&format!("{}\n", page.display())),
    }
}

/// ImageNet-C's folders: each of them a data set.
fn copies(
    dataset: &Dataset,
    root: &Path,
    preprocess: &Preprocess,
    corruptions: &[Corruption],
    out: &Path,
) -> Result<()> {
    let one = |item: &Item| -> Result<()> {
        let image = preprocess.crop(&decode(&item.path)?);
        let inside = item.path.strip_prefix(root).unwrap_or(&item.path);
        for corruption in corruptions {
            let folder = out.join(corruption.kind.name()).join(corruption.severity().to_string());
            // The whole name stays, so that cat.jpg and cat.png are two.
            let mut path = folder.join(inside).into_os_string();
            path.push(".png");
            save(&corruption.apply(&image), Path::new(&path))?;
        }
        Ok(())
    };
    dataset.items.par_iter().map(one).collect()
}

/// One file per image, and a page that has them in a table.
fn page(image: &RgbImage, preprocess: &Preprocess, corruptions: &[Corruption], out: &Path) -> Result<PathBuf> {
    let image = preprocess.crop(image);
    save(&image, &out.join("clean.png"))?;
    let write = |c: &Corruption| save(&c.apply(&image), &out.join(format!("{c}.png")));
    corruptions.par_iter().map(write).collect::<Result<()>>()?;

    let mut rows = String::new();
    for kind in CorruptionKind::ALL.into_iter().filter(|kind| corruptions.iter().any(|c| c.kind == *kind)) {
        let cells = corrupt::SEVERITIES.map(|severity| {
            let made = corruptions.iter().find(|c| c.kind == kind && c.severity() == severity);
            made.map_or("<td></td>".into(), |c| format!("<td><img src=\"{c}.png\" alt=\"{c}\"></td>"))
        });
        rows += &format!("<tr><th>{}</th>{}</tr>\n", kind.name(), cells.collect::<String>());
    }
    let html = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>Corruptions</title>\n<style>body{{font:14px sans-serif}} \
         th{{font-weight:normal;text-align:left;padding:0 8px}} img{{display:block}}</style>\n\
         <p><img src=\"clean.png\" alt=\"clean\"></p>\n\
         <table>\n<tr><th></th><th>1</th><th>2</th><th>3</th><th>4</th><th>5</th></tr>\n{rows}</table>\n"
    );
    let page = out.join("index.html");
    atomic_write(&page, html.as_bytes())?;
    Ok(page)
}

fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot create this folder", e))?;
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::data(path, format!("cannot be made a PNG: {e}")))?;
    atomic_write(path, png.get_ref())
}
