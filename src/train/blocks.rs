//! Which block of a network a tensor belongs to, by its name.

/// Where a tensor stands: before the blocks, in one, or after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// Patch embedding, positions, stem.
    Embedding,
    /// A block by its prefix, such as `blocks.3` or `layer1.0`.
    Block(String),
    /// Final norm, pooling, head.
    Head,
}

impl Group {
    /// That of the tensor called `name`.
    pub fn of(name: &str) -> Group {
        split(name).0
    }

    /// The group's name in a table.
    pub fn name(&self) -> String {
        match self {
            Self::Embedding => "embedding".into(),
            Self::Block(prefix) => prefix.clone(),
            Self::Head => "final norm and head".into(),
        }
    }

    /// The group's name on an axis: a block's number alone.
    pub fn short(&self) -> String {
        match self {
            Self::Embedding => "emb".into(),
            Self::Block(prefix) => {
                let last = prefix.rsplit_once('.').map_or(prefix.as_str(), |(stem, number)| {
                    // `layer1.0` would be mistaken for `layer2.0` without its stage.
                    if stem.ends_with(|c: char| c.is_ascii_digit()) { prefix } else { number }
                });
                last.trim_start_matches(|c: char| !c.is_ascii_digit()).to_string()
            }
            Self::Head => "head".into(),
        }
    }
}

/// Splits a name after its first run of numbers: `blocks.3.attn.qkv.weight` is `attn.qkv.weight` in `blocks.3`.
pub fn split(name: &str) -> (Group, String) {
    const FIRST: [&str; 10] = [
        "cls_token",
        "pos_embed",
        "patch_embed",
        "reg_token",
        "conv",
        "bn",
        "stem",
        "class_embedding",
        "positional_embedding",
        "ln_pre",
    ];
    let bare = name.trim_start_matches("module.").trim_start_matches("model.").trim_start_matches("visual.");
    if FIRST.iter().any(|prefix| bare.starts_with(prefix)) {
        return (Group::Embedding, name.into());
    }
    let parts: Vec<&str> = name.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match parts.iter().position(number) {
        Some(at) if at > 0 && at + 1 < parts.len() => (Group::Block(parts[..=at].join(".")), parts[at + 1..].join(".")),
        _ => (Group::Head, name.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_block_and_label() {
        let cases = [
            ("blocks.3.attn.qkv.weight", "blocks.3", "3", "attn.qkv.weight"),
            ("layer1.0.conv1.weight", "layer1.0", "1.0", "conv1.weight"),
            ("visual.transformer.resblocks.11.ln_1.bias", "visual.transformer.resblocks.11", "11", "ln_1.bias"),
            ("patch_embed.proj.weight", "embedding", "emb", "patch_embed.proj.weight"),
            ("visual.conv1.weight", "embedding", "emb", "visual.conv1.weight"),
            ("head.weight", "final norm and head", "head", "head.weight"),
            ("7", "final norm and head", "head", "7"),
        ];
        for (name, group, short, label) in cases {
            let (g, l) = split(name);
            assert_eq!((g.name().as_str(), g.short().as_str(), l.as_str()), (group, short, label), "{name}");
        }
    }
}
