//! Rotation of queries and keys (rotary position embedding, arXiv 2104.09864), in the half-split form: feature i
//! of a head pairs with feature i + n, n pairs turn, the rest of the head stays.

/// Sine and cosine of one position's angles, `[pairs]` each.
#[derive(Clone, Debug, Default)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Of `position · inv_freq[i]`, both multiplied by `scale`.
    pub fn new(position: usize, inv_freq: &[f32], scale: f32) -> Self {
        let (sin, cos) = inv_freq
            .iter()
            .map(|f| {
                let (sin, cos) = (position as f32 * f).sin_cos();
                (sin * scale, cos * scale)
            })
            .unzip();
        Self { cos, sin }
    }

    /// Turns every head of `heads`, `[n, head_dim]`.
    ///
    /// # Panics
    /// If heads are smaller than two times the pairs.
    pub fn rotate(&self, heads: &mut [f32], head_dim: usize) {
        let pairs = self.cos.len();
        assert!(2 * pairs <= head_dim, "{pairs} pairs in heads of {head_dim}");
        for head in heads.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(pairs);
            for i in 0..pairs {
                let (a, b) = (first[i], second[i]);
                first[i] = a * self.cos[i] - b * self.sin[i];
                second[i] = b * self.cos[i] + a * self.sin[i];
            }
        }
    }
}
