//! CONFIG.toml: the methods and data sets of a comparison.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::compare::entries::{between_kind, soup_kind, train_kind};
use crate::compare::outcome::copies;
use crate::compare::spec::{EntryKind, refuse, repeated};
use crate::error::{Error, Result};
use crate::method::Between;
use crate::train::TrainConfig;
use crate::train::lines::{Lines, Section, syntax};
use crate::train::records::Weights;
use crate::train::resolve::{check, merge, resolve};

/// The name of the pre-trained model among the entries.
pub const PRETRAINED: &str = "pretrained";

/// The file's own keys.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    title: Option<String>,
    out: Option<PathBuf>,
    #[serde(default)]
    seeds: Vec<u64>,
    folds: Option<usize>,
    grid_seeds: Option<usize>,
    #[serde(default)]
    weights: Weights,
    reference: Option<String>,
    #[serde(default)]
    common: Table,
    data: Vec<Table>,
    method: Vec<Table>,
}

/// A comparison, checked.
#[derive(Clone, Debug)]
pub struct CompareConfig {
    /// The page's title.
    pub title: String,
    /// Where everything is written.
    pub out: PathBuf,
    /// Seeds of the reported runs.
    pub seeds: Vec<u64>,
    /// Folds of the training images; the seeds are then their numbers.
    pub folds: Option<usize>,
    /// How many of them the grid is run with.
    pub grid_seeds: usize,
    /// Which weights are compared.
    pub weights: Weights,
    /// Index of the entry that differences are taken to.
    pub reference: usize,
    /// The data sets.
    pub data: Vec<DataSet>,
    /// The methods.
    pub methods: Vec<Entry>,
    /// Sentences about values that have no effect.
    pub notes: Vec<String>,
}

/// One data set: where a model comes from, and all its images.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// Its name, a folder's as well.
    pub name: String,
    /// OOD test sets that count once in the OOD mean: each group, and each set outside of one.
    pub groups: Vec<Vec<String>>,
}

/// One method.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, a folder's as well.
    pub name: String,
    /// What it does.
    pub kind: EntryKind,
}

/// Files that stand beside the folders of the data sets.
const OUTPUTS: [&str; 6] = ["claim", "report.html", "results.json", "results.md", "results.csv", "choices.csv"];

impl CompareConfig {
    /// Reads `file`; `out` and `folds` win over its own.
    ///
    /// # Errors
    /// Whatever the file has wrong, with the line and the entry: all configurations are resolved here, so that nothing runs
    /// before all of it makes sense.
    pub fn read(file: &Path, out: Option<&Path>, folds: Option<usize>) -> Result<CompareConfig> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, "cannot read", e))?;
        Self::parse(file, &text, out, folds)
    }

    fn parse(file: &Path, text: &str, out: Option<&Path>, folds: Option<usize>) -> Result<CompareConfig> {
        let lines = Lines::parse(file, text)?;
        let mut parsed: File = toml::from_str(text).map_err(|e| syntax(file, text, &e))?;
        let top = |key: &str, what: String| lines.error(Section::Root, Some(key), what);
        let folds = folds.or(parsed.folds);
        let mut unused = false;
        if let Some(folds) = folds {
            if folds < 2 {
                return Err(top("folds", format!("folds: {folds} is less than 2")));
            }
            if !parsed.seeds.is_empty() && parsed.folds.is_some() {
                return Err(top(
                    "seeds",
                    "seeds: with folds, the runs have the numbers of their folds as seeds: give one of both".into(),
                ));
            }
            unused = !parsed.seeds.is_empty();
            parsed.seeds = (1..=folds as u64).collect();
        }
        if parsed.seeds.is_empty() {
            return Err(top("seeds", "seeds: give at least one".into()));
        }
        if let Some(seed) = repeated(parsed.seeds.iter()) {
            return Err(top("seeds", format!("seeds: {seed} is there twice")));
        }
        if parsed.weights == Weights::Pretrained {
            return Err(top("weights", "weights: last or best, which of a run's weights are compared".into()));
        }
        let grid_seeds = parsed.grid_seeds.unwrap_or(1);
        if !(1..=parsed.seeds.len()).contains(&grid_seeds) {
            return Err(top("grid-seeds", format!("grid-seeds: 1 to {}, the number of seeds", parsed.seeds.len())));
        }
        refuse(&lines, Section::Table("common"), &parsed.common, &["seed", "method", "fold"])?;
        check(&lines, Section::Table("common"), &parsed.common)?;

        let data_names = names(&lines, "data", &parsed.data)?;
        if let Some(i) = data_names.iter().position(|name| OUTPUTS.iter().any(|file| name.eq_ignore_ascii_case(file))) {
            let what = format!("name {:?}: a file of the comparison itself has this name", data_names[i]);
            return Err(lines.error(Section::Item("data", i, &data_names[i]), Some("name"), what));
        }
        let mut data = Vec::new();
        let mut tables = Vec::new();
        for (i, (name, table)) in data_names.iter().zip(&parsed.data).enumerate() {
            let place = Section::Item("data", i, name);
            refuse(&lines, place, table, &["seed", "method", "fold"])?;
            let mut table = table.clone();
            if let Some(folds) = folds {
                table.insert("fold".into(), format!("1/{folds}").into());
            }
            table.remove("name");
            let groups: Vec<Vec<String>> = match table.remove("groups") {
                Some(groups) => groups.try_into().map_err(|_| {
                    lines.error(
                        place,
                        Some("groups"),
                        "groups: lists of OOD test sets, as [[\"a\", \"b\"], [\"c\", \"d\"]]",
                    )
                })?,
                None => Vec::new(),
            };
            check(&lines, place, &table)?;
            let table = merge(parsed.common.clone(), &table);
            let mut groups = groups;
            groups.extend(check_data(&lines, place, &table, &groups)?);
            data.push(DataSet { name: name.clone(), groups });
            tables.push(table);
        }

        let names = names(&lines, "method", &parsed.method)?;
        let mut methods = Vec::new();
        for (i, (name, table)) in names.iter().zip(&parsed.method).enumerate() {
            let place = Section::Item("method", i, name);
            if name == PRETRAINED {
                return Err(lines.error(
                    place,
                    Some("name"),
                    "this name is taken: the pre-trained model is always shown",
                ));
            }
            let method = table.get("method").map_or(Some(name.as_str()), Value::as_str);
            let kind = match method {
                Some("wise") => between_kind(Between::Wise, &lines, place, table, &names, &parsed.method)?,
                Some("lines") => between_kind(Between::Lines, &lines, place, table, &names, &parsed.method)?,
                Some("soup") => {
                    soup_kind(&lines, place, table, (&names, &parsed.method), (&parsed.seeds, folds.is_some()))?
                }
                _ => train_kind(&lines, place, table, &tables)?,
            };
            methods.push(Entry { name: name.clone(), kind });
        }
        let trains = |entry: &&Entry| matches!(entry.kind, EntryKind::Train(..));
        let reference = match &parsed.reference {
            Some(name) => {
                methods.iter().position(|m| m.name == *name).filter(|i| trains(&&methods[*i])).ok_or_else(|| {
                    top("reference", format!("reference: no method of the file that trains is called {name}"))
                })?
            }
            None => {
                let plain = methods.iter().position(|m| m.name == "vanilla" && trains(&m));
                plain
                    .or_else(|| methods.iter().position(|m| trains(&m)))
                    .ok_or_else(|| top("method", "there is no method that trains".into()))?
            }
        };
        let mut notes = without_effect(&methods, &parsed);
        if unused {
            notes.push("without effect: seeds, since the runs have the numbers of their folds as seeds".into());
        }
        let stem = file.file_stem().map_or("compare".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(CompareConfig {
            title: parsed.title.unwrap_or_else(|| stem.clone()),
            out: out.map(PathBuf::from).or(parsed.out).unwrap_or_else(|| Path::new("runs").join(&stem)),
            seeds: parsed.seeds,
            folds,
            grid_seeds,
            weights: parsed.weights,
            reference,
            data,
            methods,
            notes,
        })
    }

    /// The configurations of all grid points on all data sets.
    pub fn train_configs(&self) -> impl Iterator<Item = &TrainConfig> {
        let trained = self.methods.iter().filter_map(|method| match &method.kind {
            EntryKind::Train(_, configs) => Some(configs),
            _ => None,
        });
        trained.flatten().flatten()
    }

    /// The seeds that the grid is run with.
    pub fn tuning_seeds(&self) -> &[u64] {
        &self.seeds[..self.grid_seeds]
    }
}

/// Sentences about values that change no run: of an entry, in its own runs; of `[common]` or `[[data]]`, in any.
fn without_effect(methods: &[Entry], parsed: &File) -> Vec<String> {
    let runs = |i: usize| match &methods[i].kind {
        EntryKind::Train(_, configs) => configs.iter().flatten().collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let reason = |key: &str, runs: &[&TrainConfig]| {
        let idle =
            |run: &&TrainConfig| run.without_effect().into_iter().find_map(|(k, named)| (k == key).then_some(named));
        let reasons: Option<Vec<String>> = runs.iter().map(idle).collect();
        reasons?.into_iter().next()
    };
    let mut notes = Vec::new();
    for (i, (entry, table)) in methods.iter().zip(&parsed.method).enumerate() {
        let grid = table.get("grid").and_then(Value::as_table);
        let keys = table.keys().chain(grid.into_iter().flat_map(Table::keys));
        let named = keys.filter_map(|key| reason(key, &runs(i)));
        notes.extend(named.map(|named| format!("method {}: without effect: {named}", entry.name)));
    }
    let all: Vec<&TrainConfig> = (0..methods.len()).flat_map(runs).collect();
    let keys: BTreeSet<&String> = parsed.common.keys().chain(parsed.data.iter().flat_map(Table::keys)).collect();
    let named = keys.into_iter().filter_map(|key| reason(key, &all));
    notes.extend(named.map(|named| format!("without effect in every method: {named}")));
    notes
}

/// The names of the `[[kind]]` tables: fit for folders, and each there once.
fn names(lines: &Lines, kind: &str, tables: &[Table]) -> Result<Vec<String>> {
    if tables.is_empty() {
        return Err(lines.error(Section::Root, Some(kind), format!("there is no [[{kind}]]")));
    }
    let mut names: Vec<String> = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let place = Section::Item(kind, i, "");
        let name = table.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| lines.error(place, None, format!("this [[{kind}]] has no name = \"...\"")))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
            let what = format!("name {name:?}: letters, digits and - _ . + make a name, since it names a folder");
            return Err(lines.error(place, Some("name"), what));
        }
        if names.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(lines.error(place, Some("name"), format!("two [[{kind}]] are called {name}")));
        }
        names.push(name.into());
    }
    Ok(names)
}

/// A data set must say which of its test sets are in-distribution, and have one that is not. Returns the corrupted copies of
/// each, which count once.
fn check_data(lines: &Lines, place: Section, table: &Table, groups: &[Vec<String>]) -> Result<Vec<Vec<String>>> {
    let config = resolve(table, &Table::new()).map_err(|e| lines.error(place, None, e))?;
    let tests = config.reported().map_err(|e| lines.error(place, Some("test"), e))?;
    let is = |id: bool| tests.iter().filter(move |t| t.1 == Some(id)).map(|t| t.0);
    let copies = copies(&config).map_err(|e| lines.error(place, Some("corrupt"), e))?;
    if is(true).next().is_none() || (is(false).next().is_none() && copies.is_empty()) {
        let what =
            "give test sets, and name in id = [...] those that are in-distribution: at least one is, and one is not";
        return Err(lines.error(place, None, what));
    }
    let grouped: Vec<&String> = groups.iter().flatten().collect();
    if let Some(name) = repeated(grouped.iter()) {
        return Err(lines.error(place, Some("groups"), format!("groups: {name} is there twice")));
    }
    if let Some(name) = grouped.iter().find(|name| !is(false).any(|ood| ood == name.as_str())) {
        return Err(lines.error(place, Some("groups"), format!("groups: {name} is not an OOD test set")));
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::spec::TestPoints;

    const HEAD: &str = "seeds = [3, 4]\n[common]\nmodel = \"m\"\nepochs = 2\noptimizer = \"sgd\"\nmomentum = 0.5\n[[data]]\n\
                        name = \"d\"\ntrain = \"t\"\nval = \"v\"\ntest = [\"a=a\", \"b=b\"]\nid = [\"a\"]\n";

    fn parse(methods: &str) -> Result<CompareConfig> {
        CompareConfig::parse(Path::new("dir/c.toml"), &format!("{HEAD}{methods}"), None, None)
    }

    #[track_caller]
    fn fails(methods: &str, parts: &[&str]) {
        let error = parse(methods).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(error.starts_with("dir/c.toml: line ") && !error.contains('\n'), "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{error}\nlacks {part}"));
    }

    #[test]
    fn a_grid_is_the_product_of_its_lists_over_the_common_keys() {
        let config = parse(
            "[[method]]\nname = \"vanilla\"\n[[method]]\nname = \"t\"\nmethod = \"tpgm\"\nsteps = 7\noptimizer = \
             \"adamw\"\ngrid.lr = [0.1, 1e-3]\ngrid.norm = [\"l2\", \"mars\"]\n[[method]]\nname = \"wise\"\n",
        )
        .unwrap();
        assert_eq!((config.out, config.grid_seeds, config.reference), (PathBuf::from("runs/c"), 1, 0));
        let EntryKind::Train(points, configs) = &config.methods[1].kind else { panic!() };
        let labels: Vec<&str> = points.iter().map(|p| p.label.as_str()).collect();
        assert_eq!(labels, ["lr 0.1, norm l2", "lr 0.1, norm mars", "lr 0.001, norm l2", "lr 0.001, norm mars"]);
        assert_eq!(points[2].folder, "lr-0.001_norm-l2");
        // The entry's length takes the place of the common one; a common value stays, whatever the optimiser makes of it.
        let c = &configs[0][2];
        assert_eq!((c.optim.steps, c.optim.epochs, c.optim.momentum, c.optim.lr), (Some(7), None, 0.5, 1e-3));
        let EntryKind::Train(points, configs) = &config.methods[0].kind else { panic!() };
        assert_eq!((points.len(), points[0].folder.as_str(), configs[0][0].optim.momentum), (1, "", 0.5));
        let EntryKind::Between { between: Between::Wise, from, alphas, test_points: TestPoints::All } =
            &config.methods[2].kind
        else {
            panic!()
        };
        assert_eq!((*from, alphas.len()), (0, 11));
    }

    #[test]
    fn errors_name_entry_and_line() {
        let one = "[[method]]\nname = \"vanilla\"\n";
        fails(&format!("{one}lrr = 0.1\n"), &["line 15: method vanilla", "unknown field `lrr`"]);
        fails(&format!("{one}lr = \"high\"\n"), &["line 15: method vanilla: lr: "]);
        fails(&format!("{one}grid.lr = [0.1, \"x\"]\n"), &["line 15: method vanilla: grid.lr: "]);
        fails(&format!("{one}grid.lr = [0.1, 0.1]\n"), &["line 15", "twice"]);
        fails(&format!("{one}grid.lr = 0.1\n"), &["line 15", "a list of values"]);
        fails(&format!("{one}grid.lrr = [1]\n"), &["line 15", "unknown field `lrr`"]);
        fails(&format!("{one}grid.lr = [0.1, -1]\n"), &["method vanilla: at lr -1: --lr must be greater than 0"]);
        fails(&format!("{one}seed = 3\n"), &["line 15", "seeds = [...]"]);
        fails(&format!("{one}val = \"x\"\n"), &["line 15", "[[data]]"]);
        fails(&format!("{one}{one}"), &["line 16", "two [[method]] are called vanilla"]);
        fails("[[method]]\nname = \"nonsense\"\n", &["method nonsense", "unknown variant `nonsense`"]);
        fails("[[method]]\nname = \"a/b\"\n", &["line 14", "names a folder"]);
        fails("[[method]]\nname = \"pretrained\"\n", &["always shown"]);
        fails("[[method]]\nlr = 0.1\n", &["line 13", "no name"]);
        fails(&format!("{one}[[method]]\nname = \"wise\"\nalphas = [2]\n"), &["line 17: method wise: alphas"]);
        fails(&format!("{one}[[method]]\nname = \"wise\"\nfrom = \"x\"\n"), &["line 17", "no method is called x"]);
        fails(
            &format!("{one}[[method]]\nname = \"wise\"\ntest-points = \"best\"\n"),
            &["line 17: method wise: test-points: "],
        );
        fails(&format!("{one}[[method]]\nname = \"soup\"\n"), &["line 15: method soup", "kind is missing"]);
        fails(&format!("{one}[[method]]\nname = \"soup\"\nkind = \"cold\"\n"), &["line 17: method soup: kind: "]);
        fails("[[method]]\nname = \"wise\"\n", &["method wise", "from is missing"]);
        fails("[[metod]]\nname = \"vanilla\"\n", &["unknown field `metod`"]);
        fails("[[method]\n", &["line 13"]);
    }

    #[test]
    fn data_sets_must_say_what_is_in_distribution() {
        let file = Path::new("c.toml");
        let method = "[[method]]\nname = \"vanilla\"\n";
        let fails = |text: String, part: &str| {
            let error = CompareConfig::parse(file, &text, None, None).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        fails(format!("{}{method}", HEAD.replace("id = [\"a\"]\n", "")), "line 7: data d: give test sets");
        fails(format!("{}{method}", HEAD.replace("id = [\"a\"]\n", "id = [\"c\"]\n")), "--id c");
        fails(format!("{HEAD}groups = [[\"a\"]]\n{method}"), "line 13: data d: groups: a is not an OOD");
        fails(format!("{HEAD}groups = [[\"b\"], [\"b\"]]\n{method}"), "twice");
        fails(format!("{}{method}", HEAD.replace("[3, 4]", "[3, 3]")), "line 1: seeds: 3 is there twice");
        fails(format!("grid-seeds = 3\n{HEAD}{method}"), "line 1: grid-seeds: 1 to 2");
        fails(format!("reference = \"x\"\n{HEAD}{method}"), "line 1: reference");
        fails(format!("{}{method}", HEAD.replace("model = \"m\"\n", "")), "--model is missing");
    }
}
