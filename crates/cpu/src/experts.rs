//! Routed experts (Shazeer et al. 2017, arXiv 1701.06538): each row goes through the few experts
//! that its router scores highest.

use multigraft_kernels::{
    Activation, ActivationScratch, Activations, PackedMatrix, Part, Pool, gated, matmul,
};

use crate::weights::Expert;

/// The routed block of a layer.
pub(crate) struct Experts<'a> {
    pub(crate) router: &'a PackedMatrix,
    pub(crate) experts: &'a [Expert],
    /// Experts that each row uses.
    pub(crate) active: usize,
    /// Inner size of an expert.
    pub(crate) width: usize,
    /// Whether the chosen weights are scaled to sum to 1.
    pub(crate) normalise: bool,
    pub(crate) activation: Activation,
}

impl Experts<'_> {
    /// `out[r] = Σ_e weight(r, e) · expert_e(x[r])`; `x` and `out` are `[rows, hidden]`. A row's
    /// experts are summed in order of their index, independently of what other rows choose.
    pub(crate) fn run(&self, pool: &Pool, x: &[f32], scratch: &mut ActivationScratch, out: &mut [f32]) {
        let hidden = self.router.inp();
        let rows = x.len() / hidden;
        let count = self.experts.len();
        let mut scores = vec![0.0; rows * count];
        let part = |weight, at| Part { weight, at };
        let mut input = Activations::new(x, hidden, scratch);
        matmul(pool, &[part(self.router, 0)], &mut input, &mut scores, count, &[]);
        let chosen: Vec<Vec<(usize, f32)>> = scores
            .chunks_exact(count)
            .map(|scores| self.choose(scores))
            .collect();
        out.fill(0.0);
        for (index, expert) in self.experts.iter().enumerate() {
            let taken: Vec<(usize, f32)> = chosen
                .iter()
                .enumerate()
                .filter_map(|(row, chosen)| {
                    chosen
                        .iter()
                        .find(|(e, _)| *e == index)
                        .map(|(_, weight)| (row, *weight))
                })
                .collect();
            if taken.is_empty() {
                continue;
            }
            let inputs: Vec<f32> = taken
                .iter()
                .flat_map(|(row, _)| &x[row * hidden..][..hidden])
                .copied()
                .collect();
            let mut gate_up = vec![0.0; taken.len() * 2 * self.width];
            let gate_and_up = [part(&expert.gate, 0), part(&expert.up, self.width)];
            let mut input = Activations::new(&inputs, hidden, scratch);
            matmul(pool, &gate_and_up, &mut input, &mut gate_up, 2 * self.width, &[]);
            let mut inner = vec![0.0; taken.len() * self.width];
            gated(pool, self.activation, &gate_up, &mut inner, self.width);
            let mut outputs = vec![0.0; taken.len() * hidden];
            let mut input = Activations::new(&inner, self.width, scratch);
            matmul(
                pool,
                &[part(&expert.down, 0)],
                &mut input,
                &mut outputs,
                hidden,
                &[],
            );
            for ((row, weight), output) in taken.iter().zip(outputs.chunks_exact(hidden)) {
                let out = &mut out[row * hidden..][..hidden];
                out.iter_mut().zip(output).for_each(|(o, y)| *o += weight * y);
            }
        }
    }

    /// The experts of one row and their weights: those with the highest softmax over all scores. Of
    /// equal scores the lower index is chosen.
    fn choose(&self, scores: &[f32]) -> Vec<(usize, f32)> {
        let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f32 = exps.iter().sum();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        order.truncate(self.active);
        let kept: f32 = if self.normalise {
            order.iter().map(|&e| exps[e] / total).sum()
        } else {
            1.0
        };
        order.into_iter().map(|e| (e, exps[e] / total / kept)).collect()
    }
}
