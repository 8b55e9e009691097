//! A row of logits, surveyed once: what everything else asks first is the largest logit of each run
//! of them.
//!
//! Whoever looks for large logits then passes over the runs that have none. Nothing here sorts a
//! vocabulary.

use super::BadLogits;
use super::exp::exp_of_minus;

/// Logits per peak.
pub(super) const RUN: usize = 128;

/// What the processor adds or compares side by side.
const LANES: usize = 16;

/// A row of logits that are a distribution: finite, or -∞ for tokens that cannot be, but not for
/// all.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    logits: &'a [f32],
    /// The largest of each [`RUN`].
    peaks: Vec<f32>,
    largest: f32,
}

impl<'a> Row<'a> {
    /// Surveys logits.
    ///
    /// # Errors
    /// If they are no distribution.
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
        let row = Self::of(logits, peaks);
        match row.largest {
            f32::INFINITY => Err(BadLogits::Infinite(row.argmax() as usize)),
            f32::NEG_INFINITY => Err(BadLogits::Nothing),
            _ => Ok(row),
        }
    }

    /// Of logits that differ from those of `self` at `changed` alone, and are numbers there.
    pub(super) fn changed<'b>(&self, logits: &'b [f32], changed: impl Iterator<Item = u32>) -> Row<'b> {
        let mut peaks = self.peaks.clone();
        for run in changed.map(|id| id as usize / RUN) {
            let from = run * RUN;
            if let (Some(peak), Some(rest)) = (peaks.get_mut(run), logits.get(from..)) {
                *peak = self::peak(&rest[..rest.len().min(RUN)]).0;
            }
        }
        Row::of(logits, peaks)
    }

    fn of(logits: &'a [f32], peaks: Vec<f32>) -> Self {
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

    /// The likeliest token, of equals the lowest id.
    pub(super) fn argmax(&self) -> u32 {
        let largest = |&logit: &f32| logit == self.largest;
        let run = self.peaks.iter().position(largest).unwrap_or(0);
        let within = self.logits[run * RUN..].iter().position(largest);
        (run * RUN + within.unwrap_or(0)) as u32
    }

    /// Passes on every token whose logit is at least `limit`, in the order of ids: run by run their
    /// ids and logits.
    pub(super) fn at_least(&self, limit: f32, mut take: impl FnMut(&[u32], &[f32])) {
        let (mut ids, mut large) = ([0; RUN], [0.0; RUN]);
        let runs = self.peaks.iter().zip(self.logits.chunks(RUN)).enumerate();
        for (run, (_, logits)) in runs.filter(|(_, (peak, _))| **peak >= limit) {
            let mut kept = 0;
            // Writes all and moves on past those that stay: which do is anybody's guess, the
            // processor's too.
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
        // Each peak is a logit: at least `k` of them are as large as the `k`th largest peak.
        buffer.clear();
        buffer.extend_from_slice(&self.peaks);
        let enough = select(buffer, k).unwrap_or(f32::NEG_INFINITY);
        buffer.clear();
        self.at_least(enough, |_, logits| buffer.extend_from_slice(logits));
        select(buffer, k).unwrap_or(f32::NEG_INFINITY)
    }

    /// Σ exp(-distance) over each run, where logits' differences are multiplied by `scale`, above
    /// 0, to be distances.
    pub(super) fn masses(&self, scale: f32) -> impl Iterator<Item = f64> {
        let runs = self.logits.chunks(RUN);
        runs.map(move |run| mass(run, self.largest, scale))
    }
}

/// The `k`th largest, if there are so many.
fn select(values: &mut [f32], k: usize) -> Option<f32> {
    let index = k.checked_sub(1).filter(|&index| index < values.len())?;
    let (_, kth, _) = values.select_nth_unstable_by(index, |a, b| b.total_cmp(a));
    Some(*kth)
}

/// How far a logit is below the largest, in units of the temperature: 0 to ∞.
#[inline(always)]
pub(super) fn distance(logit: f32, largest: f32, scale: f32) -> f32 {
    (largest - logit) * scale
}

/// One value from all lanes, half with half: in as few steps after each other as can be.
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

/// The largest of a run, and whether one is not a number.
fn peak(run: &[f32]) -> (f32, bool) {
    let (chunks, rest) = run.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    let mut nan = [0_u32; LANES];
    // Without branches: almost always there is nothing to find.
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

/// Σ exp(-distance) over a run. Lanes are added in float32, of which each gets a few terms; their
/// sums in float64.
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
