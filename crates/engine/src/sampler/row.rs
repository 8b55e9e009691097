//! A row of logits, scanned once for the largest logit (the peak) of each run of logits.
//!
//! A search for large logits skips the runs whose peak is too small. No operation sorts the
//! vocabulary.

use super::BadLogits;
use super::exp::exp_of_minus;

/// Logits per peak.
pub(super) const RUN: usize = 128;

/// Logits that the processor adds or compares in parallel.
const LANES: usize = 16;

/// A row of logits that define a distribution: each is finite, or -∞ for an impossible token; at
/// least one is finite.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    logits: &'a [f32],
    /// The largest logit of each [`RUN`].
    peaks: Vec<f32>,
    largest: f32,
}

impl<'a> Row<'a> {
    /// Scans logits.
    ///
    /// # Errors
    /// If they define no distribution.
    pub(crate) fn new(logits: &'a [f32]) -> Result<Self, BadLogits> {
        let mut nan = false;
        let mut peaks = Vec::with_capacity(logits.len().div_ceil(RUN));
        for run in logits.chunks(RUN) {
            let (peak, has_nan) = peak(run);
            peaks.push(peak);
            nan |= has_nan;
        }
        if nan {
            let first = logits.iter().position(|logit| logit.is_nan());
            return Err(BadLogits::NotANumber(first.unwrap_or(0)));
        }
        let row = Self::with_peaks(logits, peaks);
        match row.largest {
            f32::INFINITY => Err(BadLogits::Infinite(row.argmax() as usize)),
            f32::NEG_INFINITY => Err(BadLogits::Nothing),
            _ => Ok(row),
        }
    }

    /// The row of `logits`, which differ from those of `self` only at `changed`, where they are not
    /// NaN.
    pub(super) fn changed<'b>(&self, logits: &'b [f32], changed: impl Iterator<Item = u32>) -> Row<'b> {
        let mut peaks = self.peaks.clone();
        for run in changed.map(|id| id as usize / RUN) {
            let from = run * RUN;
            if let (Some(peak), Some(rest)) = (peaks.get_mut(run), logits.get(from..)) {
                *peak = self::peak(&rest[..rest.len().min(RUN)]).0;
            }
        }
        Row::with_peaks(logits, peaks)
    }

    fn with_peaks(logits: &'a [f32], peaks: Vec<f32>) -> Self {
        let largest = peaks.iter().copied().fold(f32::NEG_INFINITY, larger);
        Self {
            logits,
            peaks,
            largest,
        }
    }

    pub(crate) fn logits(&self) -> &'a [f32] {
        self.logits
    }

    pub(super) fn largest(&self) -> f32 {
        self.largest
    }

    /// The likeliest token; of equals the lowest id.
    pub(super) fn argmax(&self) -> u32 {
        let largest = |&logit: &f32| logit == self.largest;
        let run = self.peaks.iter().position(largest).unwrap_or(0);
        let within = self.logits[run * RUN..].iter().position(largest);
        (run * RUN + within.unwrap_or(0)) as u32
    }

    /// Calls `take` with the ids and logits of all tokens whose logit is at least `limit`, run by
    /// run in the order of ids.
    pub(super) fn at_least(&self, limit: f32, mut take: impl FnMut(&[u32], &[f32])) {
        let (mut ids, mut large) = ([0; RUN], [0.0; RUN]);
        let runs = self.peaks.iter().zip(self.logits.chunks(RUN)).enumerate();
        for (run, (_, logits)) in runs.filter(|(_, (peak, _))| **peak >= limit) {
            let mut kept = 0;
            // Writes every logit and advances past those that stay, without branches, which the
            // processor could not predict.
            for (id, &logit) in (run as u32 * RUN as u32..).zip(logits) {
                ids[kept] = id;
                large[kept] = logit;
                kept += usize::from(logit >= limit);
            }
            take(&ids[..kept], &large[..kept]);
        }
    }

    /// The `k`th largest logit, `k` at least 1; -∞ if there are fewer.
    pub(super) fn kth_largest(&self, k: usize, buffer: &mut Vec<f32>) -> f32 {
        // Each peak is a logit, so at least `k` logits are as large as the `k`th largest peak.
        buffer.clear();
        buffer.extend_from_slice(&self.peaks);
        let enough = select(buffer, k).unwrap_or(f32::NEG_INFINITY);
        buffer.clear();
        self.at_least(enough, |_, logits| buffer.extend_from_slice(logits));
        select(buffer, k).unwrap_or(f32::NEG_INFINITY)
    }

    /// Σ exp(-distance) over each run. A distance is the difference to the largest logit times
    /// `scale`, which is above 0.
    pub(super) fn masses(&self, scale: f32) -> impl Iterator<Item = f64> {
        let runs = self.logits.chunks(RUN);
        runs.map(move |run| mass(run, self.largest, scale))
    }
}

/// The `k`th largest value, or `None` if there are fewer.
fn select(values: &mut [f32], k: usize) -> Option<f32> {
    let index = k.checked_sub(1).filter(|&index| index < values.len())?;
    let (_, kth, _) = values.select_nth_unstable_by(index, |a, b| b.total_cmp(a));
    Some(*kth)
}

/// The distance of a logit from the largest, in units of the temperature: 0 to ∞.
#[inline(always)]
pub(super) fn distance(logit: f32, largest: f32, scale: f32) -> f32 {
    (largest - logit) * scale
}

/// Reduces all lanes to one value pairwise, which takes the fewest dependent steps.
#[inline(always)]
fn fold<T: Copy>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        let (low, high) = lanes.split_at_mut(width);
        for (low, &mut high) in low.iter_mut().zip(high) {
            *low = join(*low, high);
        }
    }
    lanes[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest logit of a run, and whether the run has a NaN.
fn peak(run: &[f32]) -> (f32, bool) {
    let (chunks, rest) = run.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut nan = [0_u32; LANES];
    // Without branches, because a NaN is very rare.
    for chunk in chunks {
        for ((largest, nan), &value) in largest.iter_mut().zip(&mut nan).zip(chunk) {
            *largest = larger(*largest, value);
            *nan |= u32::from(value.is_nan());
        }
    }
    for ((largest, nan), &value) in largest.iter_mut().zip(&mut nan).zip(rest) {
        *largest = larger(*largest, value);
        *nan |= u32::from(value.is_nan());
    }
    (fold(largest, larger), fold(nan, |a, b| a | b) != 0)
}

/// Σ exp(-distance) over a run. Each lane adds a few terms in float32; the sums of lanes are added
/// in float64.
fn mass(run: &[f32], largest: f32, scale: f32) -> f64 {
    let (chunks, rest) = run.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane += exp_of_minus(distance(logit, largest, scale));
        }
    }
    for (lane, &logit) in lanes.iter_mut().zip(rest) {
        *lane += exp_of_minus(distance(logit, largest, scale));
    }
    f64::from(fold(lanes, |a, b| a + b))
}
