//! `tpgm corrupt`

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Cursor;
use std::path::{Component, Path, PathBuf};

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
use crate::stop;
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
    stop::listen()?;
    if args.data.is_dir() {
        if lies_in(&args.out, &args.data) {
            let what = format!("--out {}: it lies in --data, whose images the copies would become", args.out.display());
            return Err(Error::Usage(what));
        }
        let mut sets = [Dataset::open(&args.data, None)?];
        if sets[0].is_multi_label() {
            let what = "its images may have any number of labels, which are in a table: copies would lose them; see tpgm eval --corrupt";
            return Err(Error::data(&args.data, what));
        }
        let files = DataArgs { skip_broken: args.skip_broken, ..DataArgs::default() };
        let checked = look_at(&mut sets, &files)?;
        let [dataset] = sets;
        say_summaries([("data", &dataset)].into_iter(), &dataset.classes, &checked);
        let names = names(&dataset, &args.data)?;
        whole(&args.out, |out| copies(&dataset, &names, &preprocess, &corruptions, out))?;
        let count = corruptions.len() * dataset.items.len();
        return match args.json {
            true => print_json(&json!({"out": args.out, "images": count})),
            false => print(&format!("{}: {count} images\n", args.out.display())),
        };
    }
    let image = decode(&args.data)?;
    whole(&args.out, |out| page(&image, &preprocess, &corruptions, out))?;
    let page = args.out.join(PAGE);
    match args.json {
        true => print_json(&json!({"out": args.out, "images": corruptions.len() + 1, "page": page})),
        false => print(&format!("{}\n", page.display())),
    }
}

/// The page about one image.
const PAGE: &str = "index.html";

/// Whether `path`, which is not there yet, would lie in `folder`.
fn lies_in(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    absolute.ancestors().find_map(|above| above.canonicalize().ok()).is_some_and(|above| above.starts_with(folder))
}

/// Writes a folder as a whole: beside `out`, which it becomes in the end. Nothing is left of one that fails.
fn whole(out: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = out.file_name().ok_or_else(|| Error::Usage(format!("--out {}: this names no folder", out.display())))?;
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".part-{}", std::process::id()));
    let part = out.with_file_name(part);
    let written = write(&part)
        .and_then(|()| std::fs::rename(&part, out).map_err(|e| Error::io(out, "cannot create this folder", e)));
    if written.is_err() {
        // What stopped the work is what there is to say.
        let _ = std::fs::remove_dir_all(&part);
    }
    written
}

/// Where the copy of each image goes: into a folder of its class. Images of class folders keep their place there; others, of tables and
/// shards, which may lie anywhere, have their path below `root` in their name.
fn names(dataset: &Dataset, root: &Path) -> Result<Vec<PathBuf>> {
    let is_plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    let mut names = Vec::new();
    for item in &dataset.items {
        let class = Path::new(&dataset.classes[item.label as usize]);
        if !is_plain(class) || class.components().count() != 1 {
            let what =
                format!("the class {:?} can't be the name of a folder, which its copies would be in", class.display());
            return Err(Error::data(&item.path, what));
        }
        let inside = item.path.strip_prefix(root).ok().filter(|inside| is_plain(inside));
        let name = match inside {
            Some(inside) if inside.starts_with(class) => inside.to_path_buf(),
            Some(inside) => {
                let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
                class.join(parts.join("_"))
            }
            None => class.join(item.path.file_name().unwrap_or_default()),
        };
        if let Some(other) = seen.insert(name.clone(), &item.path) {
            let what = format!("its copies would have the name of those of {}: {}", other.display(), name.display());
            return Err(Error::data(&item.path, what));
        }
        names.push(name);
    }
    Ok(names)
}

/// ImageNet-C's folders: each of them a data set.
fn copies(
    dataset: &Dataset,
    names: &[PathBuf],
    preprocess: &Preprocess,
    corruptions: &[Corruption],
    out: &Path,
) -> Result<()> {
    let one = |(item, name): (&Item, &PathBuf)| -> Result<()> {
        stop::check()?;
        let image = preprocess.crop(&decode(&item.path)?);
        for corruption in corruptions {
            let folder = out.join(corruption.kind.name()).join(corruption.severity().to_string());
            // The whole name stays, so that cat.jpg and cat.png are two.
            let mut path = folder.join(name).into_os_string();
            path.push(".png");
            save(&corruption.apply(&image), Path::new(&path))?;
        }
        Ok(())
    };
    dataset.items.par_iter().zip(names).map(one).collect()
}

/// One file per image, and a page that has them in a table.
fn page(image: &RgbImage, preprocess: &Preprocess, corruptions: &[Corruption], out: &Path) -> Result<()> {
    let image = preprocess.crop(image);
    save(&image, &out.join("clean.png"))?;
    let write = |c: &Corruption| stop::check().and_then(|()| save(&c.apply(&image), &out.join(format!("{c}.png"))));
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
    atomic_write(out.join(PAGE), html.as_bytes())
}

fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot create this folder", e))?;
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|e| Error::data(path, format!("cannot be made a PNG: {e}")))?;
    atomic_write(path, png.get_ref())
}
