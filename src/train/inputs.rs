//! What a run reads, by digest: resumed with other images or another model under the same path, it would go on as something else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::data::{Dataset, size_of};
use crate::error::Result;
use crate::method::ClassWeights;
use crate::train::splits::Splits;

/// SHA-256 of each input, by what it is: the model's files byte by byte; of each split its files, their sizes and labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inputs(BTreeMap<String, String>);

impl Inputs {
    /// Of the model, the splits and the class weights of a run.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn of(model: &Checkpoint, splits: &Splits, weights: Option<&ClassWeights>) -> Result<Inputs> {
        let files = model.sha256()?.into_values().collect::<Vec<_>>().join(" ");
        let mut inputs = BTreeMap::from([("the weights of --model".to_string(), files)]);
        let select = splits.select.as_ref().map(|images| ("--select".to_string(), images));
        let tests = splits.tests.iter().map(|t| (format!("--test {}", t.name), &t.images));
        let named = [("--train".to_string(), &splits.train), ("--val".to_string(), &splits.val)];
        for (name, images) in named.into_iter().chain(select).chain(tests) {
            inputs.insert(format!("the images of {name}"), digest(images)?);
        }
        if let Some(weights) = weights {
            let mut hash = Sha256::new();
            weights.values().iter().for_each(|weight| hash.update(weight.to_le_bytes()));
            inputs.insert("the class weights".into(), hex(hash));
        }
        Ok(Inputs(inputs))
    }

    /// The digests, by what they are of.
    pub fn digests(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// The first input that is not what it was, `then`.
    pub fn difference(&self, then: &Inputs) -> Option<&str> {
        let differs = |(name, digest): &(&String, &String)| then.0.get(*name).is_none_or(|then| then != *digest);
        self.0.iter().find(differs).map(|(name, _)| name.as_str())
    }
}

fn digest(images: &Dataset) -> Result<String> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    images.classes.iter().for_each(|class| part(class.as_bytes()));
    for item in &images.items {
        let size = size_of(&item.path)?;
        part(item.path.as_os_str().as_encoded_bytes());
        part(&size.to_le_bytes());
        // One class as it is; of a set, whose place is no property of the image, all.
        let classes = images.classes_of(&item.label).iter().flat_map(|class| class.to_le_bytes());
        part(&classes.collect::<Vec<u8>>());
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
