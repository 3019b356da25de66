//! Where the values, parameters and gradients of a recording lie: what layers see when they run.

use crate::error::Result;
use crate::gpu::View;
use crate::gpu::buffer::Element;
use crate::model::half_weights::HalfWeights;
use crate::model::plan::{Plan, Planned};
use crate::model::value::{Act, Memory, ParamRef, Shape, Statistic, Value};
use crate::ops::{Recorder, residual};
use crate::shapes::{Activation, ParamLayout};

/// What a pass is for: which statistics batch norm takes, and whether anything is dropped at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Training with the batch's statistics, which move the running ones.
    Train,
    /// Training with the running statistics, which stay as they are.
    Frozen,
    /// Evaluation, with the running statistics and without anything random.
    Eval,
}

/// Where tensors come from.
#[derive(Debug)]
pub(super) enum Room<'a> {
    /// Each is planned, and has no memory yet.
    Planning { plan: &'a mut Plan, placeholders: &'a mut Planned, memory: View },
    /// Each is where the plan has it.
    Planned { plan: &'a Plan, tensors: &'a Planned },
}

impl Room<'_> {
    /// `len` elements. `host` keeps them apart from all others, for the host to read or write.
    pub(super) fn take(&mut self, label: &str, element: Element, len: usize, host: bool) -> View {
        match self {
            Room::Planning { plan, placeholders, memory } => {
                plan.add(label, element, len, host);
                let view = memory.placeholder(element.words(len)).holding(element, len);
                placeholders.push(view.clone());
                view
            }
            Room::Planned { plan, tensors } => tensors.view(plan.find(label), len),
        }
    }
}

/// The weights and statistics that a recording is made for, and where each tensor lies in them.
#[derive(Clone, Debug)]
pub(super) struct Arenas<'a> {
    pub(super) layout: &'a ParamLayout,
    pub(super) statistics: &'a ParamLayout,
    pub(super) w: View,
    pub(super) stats: View,
    /// The copy in f16 of what products read.
    pub(super) half: Option<(&'a HalfWeights, View)>,
}

impl Arenas<'_> {
    /// A parameter in an arena.
    fn run(&self, arena: &View, param: ParamRef) -> View {
        let params = &self.layout.params[param.places()];
        let adjoin = params.windows(2).all(|p| p[0].offset + p[0].len == p[1].offset);
        assert!(adjoin, "{} and the parameters read with it lie apart", params[0].name);
        arena.slice(params[0].offset + param.skip, param.len)
    }
}

/// The gradient of a value, as far as its readers have been reversed.
#[derive(Clone, Debug)]
struct Gradient {
    view: View,
    /// The gradient counts only where this is positive.
    mask: Option<View>,
    /// Whether no other value has the same.
    owned: bool,
}

/// The tensors of a recording.
#[derive(Debug)]
pub struct Store<'a> {
    /// What the pass is for.
    pub phase: Phase,
    values: Vec<Value>,
    room: Room<'a>,
    arenas: Arenas<'a>,
    views: Vec<Option<View>>,
    gradients: Vec<Option<Gradient>>,
    /// Tensors that have been taken for shares of a value's gradient.
    shares: Vec<usize>,
    wanted: Vec<bool>,
    trained: Vec<bool>,
    dw: Option<View>,
}

impl<'a> Store<'a> {
    /// Takes the memory of `values`.
    pub(super) fn new(values: Vec<Value>, mut room: Room<'a>, arenas: Arenas<'a>, phase: Phase) -> Store<'a> {
        let take = |value: &Value| {
            Some(room.take(&value.tensor()?, value.element, value.shape.len(), value.memory == Memory::Host))
        };
        let views = values.iter().map(take).collect();
        let count = values.len();
        Store {
            phase,
            values,
            room,
            arenas,
            views,
            gradients: vec![None; count],
            shares: vec![0; count],
            wanted: vec![false; count],
            trained: Vec::new(),
            dw: None,
        }
    }

    /// The shape of a value.
    pub fn shape(&self, act: Act) -> Shape {
        self.values[act.0].shape
    }

    /// A value.
    pub fn view(&self, act: Act) -> View {
        let view = self.views[act.0].as_ref();
        view.unwrap_or_else(|| panic!("{} has no memory", self.values[act.0].label)).clone()
    }

    /// A parameter.
    pub fn param(&self, param: ParamRef) -> View {
        self.arenas.run(&self.arenas.w, param)
    }

    /// A parameter that may not be there.
    pub fn maybe(&self, param: Option<ParamRef>) -> Option<View> {
        param.map(|param| self.param(param))
    }

    /// A weight as products with operands of this kind read it.
    pub fn product_weight(&self, param: ParamRef, element: Element) -> View {
        match (&self.arenas.half, element) {
            (Some((half, arena)), Element::Half) => half.view(arena, self.arenas.layout, param),
            _ => self.param(param),
        }
    }

    /// A running statistic.
    pub fn statistic(&self, statistic: Statistic) -> View {
        self.arenas.statistics.view(&self.arenas.stats, statistic.0)
    }

    /// Room for `len` elements that a layer's reverse needs, named `label`.
    pub fn tensor(&mut self, label: &str, element: Element, len: usize) -> View {
        self.room.take(label, element, len, false)
    }

    /// The name of a value, which no other has.
    pub fn label(&self, act: Act) -> &str {
        &self.values[act.0].label
    }

    /// Other memory for a value that a segment has dropped.
    pub fn renew(&mut self, act: Act) {
        let value = &self.values[act.0];
        if value.memory == Memory::Shared {
            let label = format!("activation {} again", value.label);
            self.views[act.0] = Some(self.room.take(&label, value.element, value.shape.len(), false));
        }
    }

    /// Goes into backward: `dw` takes the gradients of the parameters for which `trained` holds.
    pub(super) fn begin_reverse(&mut self, dw: &View, trained: &dyn Fn(usize) -> bool) {
        self.trained = (0..self.arenas.layout.params.len()).map(trained).collect();
        self.dw = Some(dw.clone());
    }

    /// Notes whether what a layer writes wants a gradient, and returns it: whether one of its parameters is trained, or one
    /// that lies before it.
    pub(super) fn note_wants(&mut self, reads: &[Act], params: &[ParamRef], writes: &[Act]) -> bool {
        let wants = reads.iter().any(|act| self.wants(*act)) || params.iter().any(|param| self.trains(*param));
        writes.iter().for_each(|act| self.wanted[act.0] = wants);
        wants
    }

    /// Whether a value is read outside its segment.
    pub(super) fn leaves(&self, act: Act) -> bool {
        self.values[act.0].leaves
    }

    /// Whether a parameter that is trained lies before this value.
    pub fn wants(&self, act: Act) -> bool {
        self.wanted[act.0]
    }

    /// Whether a parameter is trained.
    pub fn trains(&self, param: ParamRef) -> bool {
        self.trained[param.places()].contains(&true)
    }

    /// The gradient of a parameter, to which its share is added.
    pub fn dparam(&self, param: ParamRef) -> View {
        self.arenas.run(self.dw.as_ref().expect("gradients are there in backward"), param)
    }

    /// The value of which `act` is the activation, if it has no other reader: the gradient may then pass it by.
    pub fn activated(&self, act: Act) -> Option<(Act, Activation)> {
        self.values[act.0].activates.filter(|_| self.values[act.0].readers == 1)
    }

    /// Whether a value has a gradient.
    pub fn has_gradient(&self, act: Act) -> bool {
        self.gradients[act.0].is_some()
    }

    /// The gradient of a value, complete when its layer is reversed.
    pub fn gradient(&self, act: Act) -> View {
        let (view, mask) = self.masked_gradient(act);
        assert!(mask.is_none(), "{}: a gradient behind a mask", self.label(act));
        view
    }

    /// The gradient of a value; it counts only where the second, if any, is positive.
    pub fn masked_gradient(&self, act: Act) -> (View, Option<View>) {
        let gradient = self.gradients[act.0].as_ref();
        let gradient = gradient.unwrap_or_else(|| panic!("{} has no gradient", self.label(act)));
        (gradient.view.clone(), gradient.mask.clone())
    }

    /// Room for a share of a value's gradient, which [`Store::settle`] takes when it has been written.
    pub fn share(&mut self, act: Act) -> View {
        self.shares[act.0] += 1;
        let (value, share) = (&self.values[act.0], self.shares[act.0]);
        let label = match share {
            1 => format!("gradient of {}", value.label),
            _ => format!("gradient of {}, share {share}", value.label),
        };
        let (element, len) = (value.element, value.shape.len());
        self.tensor(&label, element, len)
    }

    /// Takes a share of a value's gradient that a layer of its own has written.
    pub fn settle(&mut self, r: &mut Recorder, act: Act, view: View) -> Result<()> {
        self.hand_on(r, act, view, true)
    }

    /// Takes a share of a value's gradient that may be `owned` by it: in that case nobody reads it as it is.
    fn hand_on(&mut self, r: &mut Recorder, act: Act, view: View, owned: bool) -> Result<()> {
        if !self.wants(act) {
            return Ok(());
        }
        let Some(before) = self.gradients[act.0].take() else {
            self.gradients[act.0] = Some(Gradient { view, mask: None, owned });
            return Ok(());
        };
        let (sum, shape) = (self.share(act), self.shape(act));
        assert!(before.mask.is_none(), "{}: a share beside a masked gradient", self.label(act));
        residual::forward(r, &sum, &before.view, &view, None, shape.rows(), shape.cols)?;
        self.gradients[act.0] = Some(Gradient { view: sum, mask: None, owned: true });
        Ok(())
    }

    /// A share of a value's gradient from an op that can only assign.
    pub fn assign(
        &mut self,
        r: &mut Recorder,
        act: Act,
        op: impl FnOnce(&mut Recorder, &View) -> Result<()>,
    ) -> Result<()> {
        if !self.wants(act) {
            return Ok(());
        }
        let view = self.share(act);
        op(r, &view)?;
        self.settle(r, act, view)
    }

    /// A share of a value's gradient from an op that can assign, or add where its last argument says so.
    pub fn add(
        &mut self,
        r: &mut Recorder,
        act: Act,
        op: impl FnOnce(&mut Recorder, &View, bool) -> Result<()>,
    ) -> Result<()> {
        match &self.gradients[act.0] {
            Some(Gradient { view, mask: None, owned: true }) => op(r, view, true),
            _ => self.assign(r, act, |r, view| op(r, view, false)),
        }
    }

    /// The gradient of `from`, which has been reversed, is a share of that of `to`.
    pub fn pass_on(&mut self, r: &mut Recorder, from: Act, to: Act) -> Result<()> {
        let gradient = self.gradients[from.0].clone().expect("a gradient that is passed on");
        assert!(gradient.mask.is_none(), "{}: a gradient behind a mask", self.label(from));
        self.hand_on(r, to, gradient.view, gradient.owned)
    }

    /// `view` is a share of the gradient of a value, and of others.
    pub fn lend(&mut self, r: &mut Recorder, act: Act, view: View) -> Result<()> {
        self.hand_on(r, act, view, false)
    }

    /// Whether the layer that made a value takes its gradient behind a mask.
    pub fn takes_mask(&self, act: Act) -> bool {
        let value = &self.values[act.0];
        value.masked && value.readers == 1
    }

    /// The gradient of a value that [takes a mask](Store::takes_mask).
    pub fn lend_masked(&mut self, act: Act, view: View, mask: View) {
        if self.wants(act) {
            self.gradients[act.0] = Some(Gradient { view, mask: Some(mask), owned: false });
        }
    }
}
