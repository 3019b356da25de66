//! The patch embedding: images become tokens at their positions, behind a class token and registers.

use crate::error::Result;
use crate::gpu::buffer::Element;
use crate::model::layers::LinearParams;
use crate::model::operation::{Operation, Places};
use crate::model::store::Store;
use crate::model::tape::{Act, Layer, ParamRef, Shape, Tape};
use crate::ops::{Recorder, column_sum, matmul, patch_embed, scratch_len};
use crate::shapes::Prefix;

/// What comes before the patches, and where they stand.
#[derive(Clone, Copy, Debug)]
pub struct TokenParams {
    /// `[dim]`
    pub class_token: Option<ParamRef>,
    /// `[registers, dim]`
    pub registers: Option<ParamRef>,
    /// A row of `dim` for each token that has a position.
    pub positions: Option<ParamRef>,
    /// Which tokens come before the patches.
    pub prefix: Prefix,
}

impl TokenParams {
    fn places(self) -> Places {
        let TokenParams { class_token, registers, positions, prefix } = self;
        Places { class_token, registers, positions, prefix }
    }
}

/// The parameters of a patch embedding.
#[derive(Clone, Copy, Debug)]
pub struct EmbedParams {
    /// The tokens beside the patches, and the positions.
    pub tokens: TokenParams,
    /// `[dim, channels, patch, patch]`, and `[dim]`.
    pub projection: LinearParams,
    /// Channels of an image that are read, the first of its three.
    pub channels: usize,
    /// Height and width of a patch, in pixels.
    pub patch: usize,
    /// Width of a token.
    pub dim: usize,
}

#[derive(Debug)]
struct PatchEmbed {
    own: EmbedParams,
    images: Act,
    /// `[B·P, channels·patch²]`, what the product reads.
    patches: Act,
    /// `[B·P, D]`
    embedded: Act,
    tokens: Act,
    dims: patch_embed::Dims,
    /// What the product reads.
    element: Element,
}

impl Tape {
    /// Tokens `[B, N, D]` of images.
    pub fn patch_embed(&mut self, images: Act, name: &str, own: EmbedParams) -> Act {
        let Shape { batch, height: size, .. } = self.shape(images);
        let EmbedParams { tokens: TokenParams { prefix, .. }, channels, patch, dim, projection } = own;
        // Products with a width that is no multiple of 4 are f32: a patch's, if its side is odd.
        let element = if patch.is_multiple_of(2) { self.element() } else { Element::Word };
        self.product(projection.weight, element);
        let dims = patch_embed::Dims { batch, size, channels, patch, dim, prefix };
        let grid = size / patch;
        let rows = Shape { batch, height: grid, width: grid, cols: channels * patch * patch };
        let patches = self.act("patches", rows, element);
        let embedded = self.act("patch embedding", rows.with_cols(dim), Element::Word);
        let shape = Shape { batch, height: grid * grid + prefix.tokens(), width: 1, cols: dim };
        let tokens = self.act(name, shape, Element::Word);
        let TokenParams { positions, class_token, registers, .. } = own.tokens;
        let params = [positions, class_token, registers, Some(projection.weight), projection.bias];
        let params: Vec<ParamRef> = params.into_iter().flatten().collect();
        let layer = PatchEmbed { own, images, patches, embedded, tokens, dims, element };
        self.push(layer, &[images], &params, &[tokens, patches, embedded]);
        tokens
    }
}

/// Patches of images, `[B·P, channels·patch²]`.
#[derive(Debug)]
struct Unfold {
    images: Act,
    out: Act,
    dims: patch_embed::Dims,
}

/// Patches that are embedded already, behind the prefix and at their positions.
#[derive(Debug)]
struct Assemble {
    own: TokenParams,
    embedded: Act,
    tokens: Act,
    dims: patch_embed::Dims,
}

impl Tape {
    /// The same in three steps, with `between` on what the projection leaves, `[B, P, D]` in f32.
    pub fn patch_embed_through(
        &mut self,
        images: Act,
        name: &str,
        own: EmbedParams,
        between: impl FnOnce(&mut Tape, Act) -> Act,
    ) -> Act {
        let Shape { batch, height: size, .. } = self.shape(images);
        let EmbedParams { tokens: before, channels, patch, dim, projection } = own;
        let element = if patch.is_multiple_of(2) { self.element() } else { Element::Word };
        let dims = patch_embed::Dims { batch, size, channels, patch, dim, prefix: before.prefix };
        let grid = size / patch;
        let rows = Shape { batch, height: grid, width: grid, cols: channels * patch * patch };
        let patches = self.act("patches", rows, element);
        self.push(Unfold { images, out: patches, dims }, &[images], &[], &[patches]);
        let embedded = self.linear(patches, "patch embedding", projection, Element::Word);
        let embedded = between(self, embedded);
        self.tokens(embedded, name, before)
    }

    /// Tokens of a square of patches `[B, H, W, D]`.
    pub fn tokens(&mut self, embedded: Act, name: &str, own: TokenParams) -> Act {
        let Shape { batch, height: grid, width, cols: dim } = self.shape(embedded);
        assert_eq!(grid, width, "tokens: patches lie on a square");
        let dims = patch_embed::Dims { batch, size: grid, channels: 3, patch: 1, dim, prefix: own.prefix };
        let shape = Shape { batch, height: grid * grid + own.prefix.tokens(), width: 1, cols: dim };
        let tokens = self.act(name, shape, Element::Word);
        let params: Vec<ParamRef> = [own.positions, own.class_token, own.registers].into_iter().flatten().collect();
        self.push(Assemble { own, embedded, tokens, dims }, &[embedded], &params, &[tokens]);
        tokens
    }
}

impl Layer for Unfold {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        patch_embed::unfold(r, &s.view(self.out), &s.view(self.images), self.dims)
    }

    fn backward(&self, _: &mut Store, _: &mut Recorder) -> Result<()> {
        Ok(())
    }

    fn operation(&self) -> Option<Operation> {
        let patch_embed::Dims { patch, channels, .. } = self.dims;
        Some(Operation::Patches { images: self.images, out: self.out, patch, channels })
    }
}

impl Layer for Assemble {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let own = &self.own;
        let [positions, class, registers] = [own.positions, own.class_token, own.registers].map(|p| s.maybe(p));
        let (tokens, embedded) = (s.view(self.tokens), s.view(self.embedded));
        let [positions, class, registers] = [&positions, &class, &registers].map(Option::as_ref);
        patch_embed::assemble(r, &tokens, &embedded, positions, class, registers, self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let own = &self.own;
        let params = [own.positions, own.class_token, own.registers].map(|p| p.map(|p| s.dparam(p)));
        let [positions, class, registers] = params.each_ref().map(Option::as_ref);
        let (dtokens, dembedded) = (s.gradient(self.tokens), s.share(self.embedded));
        patch_embed::backward(r, &dembedded, positions, class, registers, &dtokens, self.dims)?;
        s.settle(r, self.embedded, dembedded)
    }

    fn operation(&self) -> Option<Operation> {
        Some(Operation::Tokens { embedded: self.embedded, out: self.tokens, places: self.own.places() })
    }
}

impl PatchEmbed {
    /// Rows, columns of the result, and columns of the input.
    fn product(&self) -> (usize, usize, usize) {
        (self.dims.batch * self.dims.patches(), self.dims.dim, self.dims.patch_len())
    }
}

impl Layer for PatchEmbed {
    fn forward(&self, s: &Store, r: &mut Recorder) -> Result<()> {
        let [patches, embedded, tokens] = [self.patches, self.embedded, self.tokens].map(|act| s.view(act));
        let (own, (m, n, k)) = (&self.own, self.product());
        patch_embed::unfold(r, &patches, &s.view(self.images), self.dims)?;
        let (weight, bias) = (s.product_weight(own.projection.weight, self.element), s.maybe(own.projection.bias));
        matmul::forward(r, &embedded, &patches, &weight, bias.as_ref(), m, n, k)?;
        let TokenParams { class_token, registers, positions, .. } = own.tokens;
        let (class, registers, positions) = (s.maybe(class_token), s.maybe(registers), s.maybe(positions));
        patch_embed::assemble(r, &tokens, &embedded, positions.as_ref(), class.as_ref(), registers.as_ref(), self.dims)
    }

    fn backward(&self, s: &mut Store, r: &mut Recorder) -> Result<()> {
        let (own, (m, n, k)) = (&self.own, self.product());
        // Its product alone reads it.
        let dembedded = s.tensor("gradient of the patch embedding", self.element, m * n);
        let TokenParams { class_token, registers, positions, .. } = own.tokens;
        let (dclass, dregisters) = (class_token.map(|p| s.dparam(p)), registers.map(|p| s.dparam(p)));
        let (dpositions, dtokens) = (positions.map(|p| s.dparam(p)), s.gradient(self.tokens));
        patch_embed::backward(
            r,
            &dembedded,
            dpositions.as_ref(),
            dclass.as_ref(),
            dregisters.as_ref(),
            &dtokens,
            self.dims,
        )?;
        let LinearParams { weight, bias } = own.projection;
        if s.trains(weight) {
            matmul::backward_weight(r, &s.dparam(weight), &dembedded, &s.view(self.patches), m, n, k)?;
        }
        match bias.filter(|bias| s.trains(*bias)) {
            Some(bias) => column_sum::forward(r, &s.dparam(bias), &dembedded, m, n),
            None => Ok(()),
        }
    }

    fn scratch(&self) -> usize {
        let (m, n, k) = self.product();
        scratch_len(m, n).max(matmul::scratch_len(m, n, k))
    }

    fn macs(&self) -> usize {
        let (m, n, k) = self.product();
        m * n * k
    }

    fn operation(&self) -> Option<Operation> {
        let EmbedParams { projection: LinearParams { weight, bias }, tokens, patch, .. } = self.own;
        let places = tokens.places();
        Some(Operation::PatchEmbed { images: self.images, out: self.tokens, weight, bias, patch, places })
    }
}
