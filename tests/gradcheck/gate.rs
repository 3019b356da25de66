//! SwiGLU.

use tpgm::cpu::swiglu;

use super::{assigned, check_op};

#[test]
fn swiglu_over_odd_rows() {
    let (rows, cols) = (3, 7);
    check_op(
        "swiglu",
        &[rows * 2 * cols],
        |x| assigned(rows * cols, |out| swiglu::forward(out, &x[0], rows, cols)),
        |x, dout| vec![assigned(rows * 2 * cols, |d| swiglu::backward(d, dout, &x[0], rows, cols))],
    );
}
