//! Means over seeds with their 95 % intervals, paired differences, and effective robustness.

use serde::Serialize;

/// A mean with half the width of its 95 % interval, by Student's t over the runs; no interval for a single run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub half: Option<f64>,
    /// Runs.
    pub n: usize,
}

/// The 97.5 % quantile of Student's t with `df` degrees of freedom: a table up to 30, beyond it the first terms of the
/// expansion about the normal quantile (Abramowitz and Stegun 26.7.5), good to 1e-4.
pub fn t_quantile(df: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604,
        2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518,
        2.0484, 2.0452, 2.0423,
    ];
    if let Some(t) = df.checked_sub(1).and_then(|i| TABLE.get(i)) {
        return *t;
    }
    let (z, v) = (1.959_964_f64, df as f64);
    z + (z.powi(3) + z) / (4.0 * v) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
}

/// The mean of `values` with its interval; none without values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let half = (n > 1).then(|| {
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let deviation = (squares / (n - 1) as f64).sqrt();
        t_quantile(n - 1) * deviation / (n as f64).sqrt()
    });
    Some(Estimate { mean, half, n })
}

/// The mean of `values` minus those of `reference` with the same seed: what both share by the seed (the order of the batches,
/// a new head) cancels. A model without a seed is one model for all seeds: its difference has no interval.
pub fn paired(values: &[(Option<u64>, f64)], reference: &[(Option<u64>, f64)]) -> Option<Estimate> {
    if let [(None, value)] = values {
        let means: Vec<f64> = reference.iter().map(|r| r.1).collect();
        return estimate(&means).map(|e| Estimate { mean: value - e.mean, half: None, n: 1 });
    }
    let of = |seed| reference.iter().find(|r| r.0 == seed).map(|r| r.1);
    let differences: Vec<f64> = values.iter().filter_map(|(seed, v)| Some(v - of(*seed)?)).collect();
    estimate(&differences)
}

/// Accuracies of 0 and 1 have no logit: they are taken as this far from it.
const EDGE: f64 = 1e-3;

/// `ln(p / (1 − p))`.
pub fn logit(p: f64) -> f64 {
    let p = p.clamp(EDGE, 1.0 - EDGE);
    (p / (1.0 - p)).ln()
}

/// The inverse of [`logit`].
pub fn expit(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// OOD accuracy as expected from ID accuracy: a straight line between their logits (Taori et al. 2020, *Measuring robustness
/// to natural distribution shifts*), by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LogitFit {
    /// Slope.
    pub slope: f64,
    /// Intercept.
    pub intercept: f64,
    /// Share of the variance of the OOD logits that the line explains.
    pub r2: f64,
    /// Models it was fitted to.
    pub n: usize,
    /// Least and greatest ID accuracy among them.
    pub range: (f64, f64),
}

impl LogitFit {
    /// Fits (ID, OOD) accuracies; none where they have no two different ID accuracies.
    pub fn new(points: &[(f64, f64)]) -> Option<LogitFit> {
        let n = points.len() as f64;
        let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
        let (mx, my) = (mean(&|p| logit(p.0)), mean(&|p| logit(p.1)));
        let xx = mean(&|p| (logit(p.0) - mx).powi(2));
        let xy = mean(&|p| (logit(p.0) - mx) * (logit(p.1) - my));
        let yy = mean(&|p| (logit(p.1) - my).powi(2));
        if points.len() < 2 || xx < 1e-12 {
            return None;
        }
        let slope = xy / xx;
        let r2 = if yy > 0.0 { (xy * xy / (xx * yy)).min(1.0) } else { 1.0 };
        let ids = points.iter().map(|p| p.0);
        let range = ids.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), id| (lo.min(id), hi.max(id)));
        Some(LogitFit { slope, intercept: my - slope * mx, r2, n: points.len(), range })
    }

    /// The OOD accuracy on the line.
    pub fn expected(&self, id: f64) -> f64 {
        expit(self.intercept + self.slope * logit(id))
    }

    /// Effective robustness: OOD accuracy above the line.
    pub fn effective(&self, id: f64, ood: f64) -> f64 {
        ood - self.expected(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-4, "{got} {want}");
    }

    #[test]
    fn intervals_are_those_worked_out_by_hand() {
        // Deviations −0.02, 0, 0.02: s = 0.02, 4.3027·0.02/√3 = 0.04968.
        let e = estimate(&[0.70, 0.72, 0.74]).unwrap();
        close(e.mean, 0.72);
        close(e.half.unwrap(), 0.049_684);
        // 1 to 5: s = √2.5, 2.7764·1.581139/√5 = 1.963243.
        close(estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap().half.unwrap(), 1.963_243);
        assert_eq!(estimate(&[0.5]), Some(Estimate { mean: 0.5, half: None, n: 1 }));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (df, want) in [(1, 12.7062), (4, 2.7764), (30, 2.0423), (31, 2.0395), (40, 2.0211), (100, 1.9840)] {
            close(t_quantile(df), want);
        }
        assert!(t_quantile(31) < t_quantile(30));
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let of = |values: &[(u64, f64)]| values.iter().map(|(s, v)| (Some(*s), *v)).collect::<Vec<_>>();
        let vanilla = of(&[(0, 0.50), (1, 0.60), (2, 0.70)]);
        // The seeds differ by 0.1, the method by 0.01 to 0.03: only the latter is in the interval.
        let d = paired(&of(&[(2, 0.73), (0, 0.51), (1, 0.62)]), &vanilla).unwrap();
        close(d.mean, 0.02);
        close(d.half.unwrap(), 4.3027 * 0.01 / 3f64.sqrt());
        let d = paired(&of(&[(1, 0.62), (9, 0.1)]), &vanilla).unwrap();
        assert_eq!((d.n, d.half), (1, None));
        let one = paired(&[(None, 0.65)], &vanilla).unwrap();
        close(one.mean, 0.05);
        assert_eq!(one.half, None);
        assert_eq!(paired(&of(&[(9, 0.1)]), &vanilla), None);
    }

    #[test]
    fn a_line_between_logits_is_found_and_what_lies_above_it() {
        let points = [0.3, 0.5, 0.8].map(|id| (id, expit(0.7 * logit(id) - 0.4)));
        let fit = LogitFit::new(&points).unwrap();
        close(fit.slope, 0.7);
        close(fit.intercept, -0.4);
        close(fit.r2, 1.0);
        assert_eq!((fit.n, fit.range), (3, (0.3, 0.8)));
        close(fit.effective(0.8, points[2].1 + 0.05), 0.05);
        // Two points by hand: logits 0 and ln 3 to ln(1/3) and 0.
        let fit = LogitFit::new(&[(0.5, 0.25), (0.75, 0.5)]).unwrap();
        close(fit.slope, 1.0);
        close(fit.intercept, -(3f64.ln()));
        assert_eq!(LogitFit::new(&[(0.5, 0.2), (0.5, 0.4)]), None);
        assert_eq!(LogitFit::new(&[(0.5, 0.2)]), None);
        assert!(LogitFit::new(&[(0.0, 0.0), (1.0, 1.0)]).unwrap().slope.is_finite());
    }
}
