//! What a WGSL file is: its text, and the library files that it needs. The text is compiled in; nothing is read at run time. The
//! files themselves are listed beside the ops that run them.

/// A WGSL file and the library files whose text is appended to it (WGSL lets declarations follow use, so that line
/// numbers in errors stay those of the file).
#[derive(Debug)]
pub struct Shader {
    /// The file's stem, as in `layer_norm`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
    /// Library texts that it needs.
    pub libs: &'static [&'static str],
}

impl Shader {
    /// The whole module: file, libraries, then the host's `tail` (`const` and `alias` lines). What a tail names is
    /// enabled, which alone must come first; on the file's own first line, a comment. A tail with [`by_subgroups`] brings
    /// the reduction by subgroup operations.
    pub fn source(&self, tail: &str) -> String {
        let mut source = if tail.contains("f16") { "enable f16; ".to_string() } else { String::new() };
        if tail.contains("coop_mat") {
            source.push_str("enable wgpu_cooperative_matrix; ");
        }
        source.push_str(self.text);
        let reduce = if tail.contains(ONE_SUBGROUP) { REDUCE_SUBGROUP } else { REDUCE };
        let libs = self.libs.iter().map(|lib| if *lib == REDUCE { reduce } else { *lib });
        for part in libs.chain([tail]) {
            source.push('\n');
            source.push_str(part);
        }
        source
    }

    /// Whether lanes of a workgroup add up values of theirs (`lib/reduce.wgsl`).
    pub fn reduces(&self) -> bool {
        self.libs.contains(&REDUCE)
    }
}

const ONE_SUBGROUP: &str = "const ONE_SUBGROUP";

/// The text appended to a shader that [reduces](Shader::reduces), so that it does by subgroup operations
/// (`lib/reduce_subgroup.wgsl`). `one` says that a workgroup is no larger than the adapter's smallest subgroup.
pub fn by_subgroups(one: bool) -> String {
    format!("{ONE_SUBGROUP} = {one};\n")
}

/// The text appended to shaders over rows, with the element's alias and `total`.
pub(crate) const ELEM: &str = include_str!("../../shaders/lib/elem.wgsl");
/// Two values in a word of 64 bits: what [`ELEM_8`] needs, among others.
pub(crate) const WORDS: &str = include_str!("../../shaders/lib/words.wgsl");
/// The same for elements of eight values, whole.
pub(crate) const ELEM_8: &str = include_str!("../../shaders/lib/elem_8.wgsl");

/// A learned bias for each offset of two tokens, which is appended to attention shaders.
pub(crate) const RELATIVE: &str = include_str!("../../shaders/lib/relative.wgsl");
/// Keys that a query does not see, which is appended to attention shaders for texts.
pub(crate) const MASK: &str = include_str!("../../shaders/lib/mask.wgsl");
/// How long each sequence is, which goes with [`MASK`].
pub(crate) const LENGTHS: &str = include_str!("../../shaders/lib/lengths.wgsl");

pub(crate) const REDUCE: &str = include_str!("../../shaders/lib/reduce.wgsl");
const REDUCE_SUBGROUP: &str = include_str!("../../shaders/lib/reduce_subgroup.wgsl");
pub(crate) const FOLD: &str = include_str!("../../shaders/lib/fold.wgsl");
pub(crate) const TILE: &str = include_str!("../../shaders/lib/tile.wgsl");
pub(crate) const LANES: &str = include_str!("../../shaders/lib/lanes.wgsl");
pub(crate) const QUADS: &str = include_str!("../../shaders/lib/quads.wgsl");
pub(crate) const MATRICES: &str = include_str!("../../shaders/lib/matrices.wgsl");
pub(crate) const OPERANDS: &str = include_str!("../../shaders/lib/operands.wgsl");
pub(crate) const STORE: &str = include_str!("../../shaders/lib/store.wgsl");
pub(crate) const PIXELS: &str = include_str!("../../shaders/lib/pixels.wgsl");
pub(crate) const STORE_PIXELS: &str = include_str!("../../shaders/lib/store_pixels.wgsl");
pub(crate) const GELU_FUNCTIONS: &str = include_str!("../../shaders/lib/gelu.wgsl");
pub(crate) const ROWS: &str = include_str!("../../shaders/lib/rows.wgsl");
pub(crate) const STRIPES: &str = include_str!("../../shaders/lib/stripes.wgsl");
pub(crate) const SEAT: &str = include_str!("../../shaders/lib/seat.wgsl");
pub(crate) const STEP: &str = include_str!("../../shaders/lib/step.wgsl");

/// The [`Shader`] of `shaders/STEM.wgsl`, with the library files that it needs: `shader!("gelu", FOLD, GELU_FUNCTIONS)`.
macro_rules! shader {
    ($stem:literal $(, $lib:ident)*) => {
        $crate::gpu::shaders::Shader {
            name: $stem,
            text: include_str!(concat!("../../shaders/", $stem, ".wgsl")),
            libs: &[$($crate::gpu::shaders::$lib),*],
        }
    };
}
pub(crate) use shader;
