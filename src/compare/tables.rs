//! The files of a comparison: `results.json`, `results.csv`, `choices.csv`.

use std::path::Path;

use crate::atomic::atomic_write;
use crate::compare::results::Results;
use crate::error::Result;

fn csv(path: &Path, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<()> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(header).expect("writing to memory");
    for row in rows {
        csv.write_record(&row).expect("rows have a field a column");
    }
    atomic_write(path, &csv.into_inner().expect("writing to memory"))
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

/// Writes the three files into `dir`.
///
/// # Errors
/// Where one can't be written.
pub fn write(results: &Results, dir: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(results).expect("plain values always serialise");
    atomic_write(dir.join("results.json"), &json)?;
    let header = [
        "data",
        "method",
        "chosen",
        "seed",
        "set",
        "kind",
        "images",
        "top1",
        "top5",
        "loss",
        "ece",
        "select_top1",
        "run",
    ];
    let rows = results.data.iter().flat_map(|data| {
        data.entries.iter().flat_map(move |entry| {
            let chosen = entry.chosen.map_or("", |point| entry.points[point].label.as_str());
            entry.models.iter().flat_map(move |model| {
                model.sets.iter().map(move |set| {
                    vec![
                        data.name.clone(),
                        entry.name.clone(),
                        chosen.into(),
                        text(model.seed),
                        set.name.clone(),
                        if set.id { "id" } else { "ood" }.into(),
                        set.images.to_string(),
                        set.top1.to_string(),
                        set.top5.to_string(),
                        set.loss.to_string(),
                        set.ece.to_string(),
                        model.select.top1.to_string(),
                        model.dir.display().to_string(),
                    ]
                })
            })
        })
    });
    csv(&dir.join("results.csv"), &header, rows)?;
    let header = ["data", "method", "point", "seeds", "select_top1", "select_loss", "rank", "chosen", "error"];
    let seeds = results.seeds[..results.grid_seeds].iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let seeds = &seeds;
    let rows = results.data.iter().flat_map(|data| {
        data.entries.iter().filter(|entry| entry.points.len() > 1).flat_map(move |entry| {
            entry.points.iter().enumerate().map(move |(i, point)| {
                vec![
                    data.name.clone(),
                    entry.name.clone(),
                    point.label.clone(),
                    seeds.clone(),
                    text(point.select.map(|s| s.top1)),
                    text(point.select.map(|s| s.loss)),
                    text(point.rank),
                    (entry.chosen == Some(i)).to_string(),
                    text(point.error.as_ref()),
                ]
            })
        })
    });
    csv(&dir.join("choices.csv"), &header, rows)
}
