//! A prompt's embedding, accumulated chunk by chunk.

/// How the hidden states of a prompt's positions become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all positions (Reimers and Gurevych 2019, arXiv 1908.10084).
    Mean,
    /// The hidden state of the last position, which alone depends on the whole prompt.
    Last,
}

/// The hidden states so far. Kept over a preemption, after which rows may be computed again; those
/// are ignored.
#[derive(Debug)]
pub(crate) struct Embedding {
    pooling: Pooling,
    /// Number of positions so far.
    taken: usize,
    /// In float64, so that the mean of a long prompt is as exact as that of a short one.
    sum: Vec<f64>,
}

/// A hidden state that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hidden state of position {position} is not finite")]
pub(crate) struct BadState {
    position: usize,
}

impl Embedding {
    pub(crate) fn new(pooling: Pooling) -> Self {
        Self {
            pooling,
            taken: 0,
            sum: Vec::new(),
        }
    }

    /// Whether hidden states of positions other than the last are needed.
    pub(crate) fn of_every_row(&self) -> bool {
        self.pooling == Pooling::Mean
    }

    /// Adds the hidden state at `position`.
    ///
    /// # Errors
    /// If it is not finite.
    pub(crate) fn take(&mut self, position: usize, state: &[f32]) -> Result<(), BadState> {
        match self.pooling {
            Pooling::Mean if position != self.taken => return Ok(()),
            Pooling::Mean => self.taken += 1,
            Pooling::Last => {
                self.taken = 1;
                self.sum.clear();
            }
        }
        if !state.iter().all(|value| value.is_finite()) {
            return Err(BadState { position });
        }
        self.sum.resize(state.len(), 0.0);
        for (sum, &value) in self.sum.iter_mut().zip(state) {
            *sum += f64::from(value);
        }
        Ok(())
    }

    /// The embedding, `[hidden]`, not normalised.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a mean of numbers in single precision is within its range"
    )]
    pub(crate) fn finish(self) -> Vec<f32> {
        let count = self.taken.max(1) as f64;
        self.sum.iter().map(|sum| (sum / count) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_counts_every_position_once_even_if_it_is_recomputed() {
        let mut mean = Embedding::new(Pooling::Mean);
        for (position, state) in [
            (0, [1.0, 4.0]),
            (1, [3.0, 0.0]),
            (0, [9.0, 9.0]),
            (1, [9.0, 9.0]),
            (2, [5.0, 2.0]),
        ] {
            mean.take(position, &state).unwrap();
        }
        assert_eq!(mean.finish(), [3.0, 2.0]);
    }

    #[test]
    fn the_last_position_is_the_embedding() {
        let mut last = Embedding::new(Pooling::Last);
        last.take(7, &[1.0, 2.0]).unwrap();
        last.take(8, &[3.0, 4.0]).unwrap();
        assert_eq!(last.finish(), [3.0, 4.0]);
    }

    #[test]
    fn what_is_not_finite_is_refused_with_its_position() {
        for bad in [f32::NAN, f32::INFINITY] {
            let refused = Embedding::new(Pooling::Mean).take(0, &[0.0, bad]).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "the hidden state of position 0 is not finite"
            );
        }
    }
}
