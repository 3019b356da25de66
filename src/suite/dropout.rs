//! Dropout and stochastic depth, in f32 and f16: the same numbers as the reference's, to the last bit of which value is kept.

use super::formats::{formats, prefix, rounded, stored_eps};
use super::harness::{Case, EPS, Launch, Random, wide};
use super::{Plan, Stem, stem};
use crate::cpu;
use crate::error::Result;
use crate::ops;
use crate::ops::dropout::{Dims, Each};

pub(super) const STEMS: &[Stem] = &[stem("dropout", dropout, &["dropout::forward", "dropout::backward"])];

fn dropout(p: &mut Plan) -> Result<()> {
    // Images, values of each, layer, rate: the first words of a known answer, images of one value, images shorter than a workgroup is
    // wide, runs of a lane over several images, and a rate of 0, which keeps everything.
    let shapes = [
        (1, 4, 0, 0.5),
        (7, 1, 1, 0.3),
        (5, 63, 2, 0.1),
        (3, 65, 9, 0.9),
        (4, 1000, 3, 0.25),
        (2, 5001, 4, 0.6),
        (33, 12, 70_000, 0.5),
        (130, 36, 5, 0.2),
        (3, 768, 6, 0.0),
    ];
    // Seeds of both words, late steps, and a pass that begins inside of a batch.
    let states = [[0; 4], [3, 0, 1, 0], [u32::MAX, 0xdead_beef, 4_000_000_000, 77]];
    for (launch, &element) in Launch::all(p.gpu).into_iter().flat_map(|l| formats(p.gpu).iter().map(move |e| (l, e))) {
        for (i, (batch, per, layer, rate)) in p.pick(&shapes, &[3, 6]) {
            for each in [Each::Value, Each::Image] {
                p.add(move |s| {
                    let (dims, state) = (Dims { batch, per, each, layer, rate }, states[i % states.len()]);
                    let mut random = Random::new((batch * per) as u64);
                    let [inp32, dout32] = [0; 2].map(|_| rounded(random.vec(batch * per), element));
                    let (mut want, mut want_grad) = (vec![0.0; batch * per], vec![0.0; batch * per]);
                    cpu::dropout::forward(&mut want, &wide(&inp32), state, dims);
                    cpu::dropout::backward(&mut want_grad, &wide(&dout32), state, dims);
                    let name = format!(
                        "{}{each:?}, batch {batch}, per {per}, rate {rate}, {}",
                        prefix(element),
                        launch.suffix()
                    );
                    let mut c = Case::new(s.gpu, name, 0)?;
                    let [inp, dout] = [c.input_as("inp", element, &inp32)?, c.input_as("dout", element, &dout32)?];
                    let state = c.words("random", &state)?;
                    let [out, dinp] =
                        [c.output_as("out", element, batch * per)?, c.output_as("dinp", element, batch * per)?];
                    c.run(launch, |r| {
                        ops::dropout::forward(r, &out, &inp, &state, dims)?;
                        ops::dropout::backward(r, &dinp, &dout, &state, dims)
                    })?;
                    // A product: a value dropped where it should be kept is off by far more.
                    for (kernel, view, want) in
                        [("dropout::forward", &out, &want), ("dropout::backward", &dinp, &want_grad)]
                    {
                        c.expect(kernel, view, want, stored_eps(element) + EPS);
                    }
                    s.finish(c)
                });
            }
        }
    }
    Ok(())
}
