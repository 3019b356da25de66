//! What text towers have besides.

use tpgm::cpu::{embedding, pick};

use super::{Noise, added, assigned, check_op};

#[test]
fn embedding_of_ids_that_occur_often_and_never() {
    let (tokens, dim, ids) = (3, 5, [2, 0, 2, 2, 3, 0]);
    check_op(
        "embedding",
        &[5 * dim, tokens * dim],
        |x| assigned(ids.len() * dim, |out| embedding::forward(out, &ids, &x[0], &x[1], tokens, dim)),
        |_, dout| {
            let mut dpositions = vec![0.0; tokens * dim];
            let dweight = added(5 * dim, |d| embedding::backward_params(d, &mut dpositions, dout, &ids, tokens, dim));
            vec![dweight, dpositions]
        },
    );
}

#[test]
fn one_token_of_each_text() {
    let (tokens, dim, at) = (4, 3, [3, 0]);
    check_op(
        "pick",
        &[at.len() * tokens * dim],
        |x| assigned(at.len() * dim, |out| pick::forward(out, &x[0], &at, tokens, dim)),
        |x, dout| vec![added(x[0].len(), |d| pick::backward_input(d, dout, &at, tokens, dim))],
    );
    let inp = Noise(5).vec(at.len() * tokens * dim);
    let out = assigned(at.len() * dim, |out| pick::forward(out, &inp, &at, tokens, dim));
    assert_eq!(out, [&inp[9..12], &inp[12..15]].concat());
}
