//! Dropout and stochastic depth.

use tpgm::cpu::dropout::{self, Dims, Each};

use super::{assigned, check_op};

#[test]
fn dropout_of_values_and_of_images() {
    let (batch, per, state) = (5, 7, [11, 3, 2, 40]);
    for (each, rate) in [(Each::Value, 0.4), (Each::Image, 0.4), (Each::Value, 0.0)] {
        let dims = Dims { batch, per, each, layer: 2, rate };
        check_op(
            &format!("dropout of each {each:?}, rate {rate}"),
            &[batch * per],
            |x| assigned(batch * per, |out| dropout::forward(out, &x[0], state, dims)),
            |_, dout| vec![assigned(batch * per, |d| dropout::backward(d, dout, state, dims))],
        );
    }
}
