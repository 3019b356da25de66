//! What a kernel takes of a tensor at a time, of which the host tells it by what it appends.

use crate::gpu::buffer::Element;
use crate::gpu::shaders;

/// Vectors of four elements or single ones, computed with as f32, as they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elem {
    /// 4 or 1.
    pub(super) width: usize,
    stored: Element,
}

impl Elem {
    /// All of them.
    pub(super) const ALL: [Elem; 4] = [
        Elem { width: 4, stored: Element::Word },
        Elem { width: 4, stored: Element::Half },
        Elem { width: 1, stored: Element::Word },
        Elem { width: 1, stored: Element::Half },
    ];

    /// For rows of `cols` elements: vectors if `cols` is a multiple of 4.
    pub(super) fn of(cols: usize, stored: Element) -> Elem {
        Elem { width: if cols.is_multiple_of(4) { 4 } else { 1 }, stored }
    }

    /// `elem`, what a kernel computes with.
    pub(super) fn alias(self) -> String {
        format!("alias elem = {};\n", if self.width == 4 { "vec4f" } else { "f32" })
    }

    /// `elem`, and `stored`, what its activations hold.
    pub(super) fn tail(self) -> String {
        format!("{}{}", self.alias(), self.held("stored"))
    }

    /// The alias `name` for what these are stored as.
    pub(super) fn held(self, name: &str) -> String {
        let held = match (self.width, self.stored) {
            (4, Element::Word) => "vec4f".to_string(),
            (4, half) => format!("vec4<{}>", half.scalar()),
            (_, single) => single.scalar().to_string(),
        };
        format!("alias {name} = {held};\n")
    }

    /// `WIDTH`, and `total`, which adds up the parts of an `elem`.
    pub(super) fn total(self) -> String {
        let sum = if self.width == 4 { "x.x + x.y + (x.z + x.w)" } else { "x" };
        format!("const WIDTH = {}u;\nfn total(x: elem) -> f32 {{ return {sum}; }}\n", self.width)
    }

    /// What its single elements are stored as.
    pub(super) fn scalar(self) -> &'static str {
        self.stored.scalar()
    }
}

/// For shaders that leave it to the host what single elements of their activations are stored as.
pub(super) fn stored(element: Element) -> String {
    format!("alias stored = {};\n", element.scalar())
}

/// Both formats of activations.
pub(super) const FORMATS: [Element; 2] = [Element::Word, Element::Half];

/// Widths of what a lane of the shaders over row tables (`lib/rows.wgsl`) takes of a row at a time.
pub(super) const ROW_WIDTHS: [usize; 3] = [1, 4, 8];

/// The text appended to these for one of [`ROW_WIDTHS`].
pub(super) fn row_elem(width: usize) -> String {
    if width == 8 {
        return shaders::ELEM_8.to_string() + shaders::WORDS;
    }
    let elem = Elem::of(width, Element::Word);
    elem.alias() + &elem.total() + shaders::ELEM
}
