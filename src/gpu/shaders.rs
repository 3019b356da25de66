//! Every WGSL file of the program, by stem. The text is compiled in; nothing is read at run time.

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

/// What is appended to a shader that [reduces](Shader::reduces), so that it does by subgroup operations
/// (`lib/reduce_subgroup.wgsl`). `one` says that a workgroup is no larger than the adapter's smallest subgroup.
pub fn by_subgroups(one: bool) -> String {
    format!("{ONE_SUBGROUP} = {one};\n")
}

/// What is appended to shaders over rows, with the element's alias and `total`.
pub(crate) const ELEM: &str = include_str!("../../shaders/lib/elem.wgsl");
/// Two values in a word of 64 bits: what [`ELEM_8`] needs, among others.
pub(crate) const WORDS: &str = include_str!("../../shaders/lib/words.wgsl");
/// The same for elements of eight values, whole.
pub(crate) const ELEM_8: &str = include_str!("../../shaders/lib/elem_8.wgsl");

const REDUCE: &str = include_str!("../../shaders/lib/reduce.wgsl");
const REDUCE_SUBGROUP: &str = include_str!("../../shaders/lib/reduce_subgroup.wgsl");
const FOLD: &str = include_str!("../../shaders/lib/fold.wgsl");
const TILE: &str = include_str!("../../shaders/lib/tile.wgsl");
const LANES: &str = include_str!("../../shaders/lib/lanes.wgsl");
const QUADS: &str = include_str!("../../shaders/lib/quads.wgsl");
const MATRICES: &str = include_str!("../../shaders/lib/matrices.wgsl");
const OPERANDS: &str = include_str!("../../shaders/lib/operands.wgsl");
const STORE: &str = include_str!("../../shaders/lib/store.wgsl");
const PIXELS: &str = include_str!("../../shaders/lib/pixels.wgsl");
const STORE_PIXELS: &str = include_str!("../../shaders/lib/store_pixels.wgsl");
const GELU_FUNCTIONS: &str = include_str!("../../shaders/lib/gelu.wgsl");
const ROWS: &str = include_str!("../../shaders/lib/rows.wgsl");
const STEP: &str = include_str!("../../shaders/lib/step.wgsl");

/// What a matrix product does with its sums on their way out: a text that is appended to `matmul.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Epilogue {
    /// `out = sum`
    None,
    /// `out = gelu(sum)`, `hidden = sum`
    Gelu,
    /// `out = sum · gelu'(hidden)`
    GeluBackward,
    /// `out = residual + sum`
    Residual,
    /// `out = residual + gamma · sum`, `branch = sum`
    ResidualScaled,
}

impl Epilogue {
    /// All of them, for the tests.
    pub const ALL: [Epilogue; 5] =
        [Epilogue::None, Epilogue::Gelu, Epilogue::GeluBackward, Epilogue::Residual, Epilogue::ResidualScaled];

    /// What is appended, the `const`s that it needs aside.
    pub fn text(self) -> String {
        let own = match self {
            Epilogue::None => include_str!("../../shaders/lib/epilogue_none.wgsl"),
            Epilogue::Gelu => include_str!("../../shaders/lib/epilogue_gelu.wgsl"),
            Epilogue::GeluBackward => include_str!("../../shaders/lib/epilogue_gelu_backward.wgsl"),
            Epilogue::Residual => include_str!("../../shaders/lib/epilogue_residual.wgsl"),
            Epilogue::ResidualScaled => include_str!("../../shaders/lib/epilogue_residual_scaled.wgsl"),
        };
        let functions = matches!(self, Epilogue::Gelu | Epilogue::GeluBackward);
        if functions { format!("{own}\n{GELU_FUNCTIONS}\nalias elem = vec4f;\n") } else { own.into() }
    }
}

macro_rules! shaders {
    ($($constant:ident $stem:literal [$($lib:ident),*];)*) => {
        $(
            #[doc = concat!("`shaders/", $stem, ".wgsl`")]
            pub static $constant: Shader = Shader {
                name: $stem,
                text: include_str!(concat!("../../shaders/", $stem, ".wgsl")),
                libs: &[$($lib),*],
            };
        )*
        /// All of them, for the tests that validate and translate each one.
        pub static ALL: &[&Shader] = &[$(&$constant),*];
    };
}

shaders! {
    MATMUL "matmul" [TILE, STORE];
    MATMUL_COOPERATIVE "matmul_cooperative" [MATRICES];
    MATMUL_DIRECT "matmul_direct" [LANES, OPERANDS, STORE];
    MATMUL_SUBGROUP "matmul_subgroup" [LANES, QUADS, OPERANDS, STORE];
    CAST "cast" [FOLD];
    COLUMN_SUM "column_sum" [];
    LAYER_NORM "layer_norm" [REDUCE, FOLD];
    GELU "gelu" [FOLD, GELU_FUNCTIONS];
    SWIGLU "swiglu" [FOLD];
    ATTENTION "attention" [];
    ATTENTION_COOPERATIVE "attention_cooperative" [];
    ATTENTION_DIRECT "attention_direct" [];
    ATTENTION_POOL "attention_pool" [REDUCE, FOLD];
    RESIDUAL "residual" [FOLD];
    CONV2D "conv2d" [TILE, PIXELS, STORE_PIXELS, FOLD];
    CONV2D_COOPERATIVE "conv2d_cooperative" [MATRICES, PIXELS, STORE_PIXELS];
    CONV2D_DIRECT "conv2d_direct" [PIXELS, LANES];
    CONV2D_SUBGROUP "conv2d_subgroup" [PIXELS, LANES, QUADS, STORE_PIXELS];
    BATCH_NORM "batch_norm" [REDUCE, FOLD];
    RELU "relu" [FOLD];
    L2_NORMALIZE "l2_normalize" [REDUCE, FOLD];
    AVERAGE "average" [FOLD];
    MAX_POOL "max_pool" [];
    AVG_POOL "avg_pool" [];
    PATCH_EMBED "patch_embed" [FOLD];
    POOL "pool" [FOLD];
    CROSS_ENTROPY "cross_entropy" [REDUCE, STEP];
    NORM_CLIP "norm_clip" [REDUCE, FOLD, STEP];
    LOSS_SCALE "loss_scale" [REDUCE, STEP];
    SGD "sgd" [FOLD, STEP];
    ADAMW "adamw" [FOLD, STEP];
    MARS "mars" [REDUCE, FOLD, STEP, ROWS];
    FTP "ftp" [REDUCE, FOLD, STEP, ROWS];
    SPD "spd" [REDUCE, FOLD, ROWS];
    L2_SP "l2_sp" [FOLD];
    LERP "lerp" [FOLD];
    PEAK "peak" [FOLD];
}
