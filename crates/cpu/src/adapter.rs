//! An adapter's weights, packed for the kernels.

use std::collections::HashMap;

use multigraft_kernels::{LoraDtype, PackedLora, PackedMatrix};
use multigraft_model::{
    AdapterWeights, EmbeddingDelta, LinearDelta, LinearId, LowRank, Matrix, ModelError, Target, Throttle,
};

use crate::model::CpuBase;

/// An adapter packed for one base model: the parts of a
/// [`ReadyAdapter`](multigraft_model::ReadyAdapter) of this device.
#[derive(Debug)]
pub(crate) struct PackedAdapter {
    /// [`CpuBase::id`] of the base it is packed for.
    base: u64,
    bytes: usize,
    /// `[layers][targets]`
    linears: Vec<Option<PackedLinear>>,
    pub(crate) head: Option<PackedLinear>,
    pub(crate) embedding: Option<PackedEmbedding>,
}

/// What an adapter does to one linear map: `gain · (W·x + s·B·A·x) + addend + bias`.
#[derive(Debug, Default)]
pub(crate) struct PackedLinear {
    pub(crate) lora: Option<PackedLora>,
    /// DoRA's `m / ‖W + s·B·A‖`, IA³'s scales, or both, `[out]`.
    pub(crate) gain: Option<Vec<f32>>,
    /// `s · lora_B.bias`, `[out]`.
    pub(crate) addend: Option<Vec<f32>>,
    /// Replaces the base's bias, `[out]`.
    pub(crate) bias: Option<Vec<f32>>,
    /// Replaces the base's weight, `[out, in]`.
    pub(crate) replaced: Option<PackedMatrix>,
    /// The outputs whose weights are replaced, and their new weights, `[rows, in]`.
    pub(crate) rows: Option<(Vec<u32>, PackedMatrix)>,
}

/// What an adapter does to the token embedding.
#[derive(Debug)]
pub(crate) struct PackedEmbedding {
    replaced: Option<PackedMatrix>,
    rows: HashMap<u32, Vec<f32>>,
    low_rank: Option<EmbeddingLowRank>,
}

#[derive(Debug)]
struct EmbeddingLowRank {
    rank: usize,
    /// A transposed, `[vocab, rank]`, so that a token's values are one row.
    a: Vec<f32>,
    /// `[hidden, rank]`
    b: Vec<f32>,
    /// `[rank]`
    scalings: Vec<f32>,
}

impl PackedAdapter {
    /// Packs for `model`.
    pub(crate) fn new(
        model: &CpuBase,
        weights: &AdapterWeights,
        dtype: LoraDtype,
        throttle: &Throttle,
    ) -> Result<Self, ModelError> {
        let mut packed = Self {
            base: model.id,
            bytes: 0,
            linears: (0..model.layers.len() * TARGETS).map(|_| None).collect(),
            head: None,
            embedding: weights
                .embedding
                .as_ref()
                .map(|delta| PackedEmbedding::new(delta, &model.embedding)),
        };
        for (id, delta) in &weights.linears {
            let (base, bias) = model
                .linear(*id)
                .ok_or_else(|| ModelError::AdapterMismatch(format!("{id:?}")))?;
            check(delta, base).map_err(|what| ModelError::AdapterMismatch(format!("{id:?}: {what}")))?;
            let linear = PackedLinear::new(delta, base, bias, dtype);
            throttle.pause();
            packed.bytes += linear.bytes();
            match *id {
                LinearId::Layer { layer, target } => {
                    packed.linears[layer * TARGETS + target as usize] = Some(linear)
                }
                LinearId::LmHead => packed.head = Some(linear),
            }
        }
        packed.bytes += packed.embedding.as_ref().map_or(0, PackedEmbedding::bytes);
        Ok(packed)
    }

    /// Memory of the packed weights, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part that replaces the base's instead of being added to it, so that no scale multiplies
    /// it; `None` if the adapter consists of scalable updates alone.
    pub(crate) fn unscalable(&self) -> Option<&'static str> {
        let linears = self.linears.iter().flatten().chain(&self.head);
        linears
            .filter_map(PackedLinear::unscalable)
            .chain(self.embedding.as_ref().and_then(PackedEmbedding::unscalable))
            .next()
    }

    pub(crate) fn fits(&self, model: &CpuBase) -> bool {
        self.base == model.id
    }

    pub(crate) fn linear(&self, layer: usize, target: Target) -> Option<&PackedLinear> {
        self.linears.get(layer * TARGETS + target as usize)?.as_ref()
    }
}

/// Names of parts that cannot be scaled, for messages.
const REPLACED: &str = "a whole table in the base's stead (modules_to_save)";
const TOKEN_ROWS: &str = "trained token rows";

/// How many variants [`Target`] has.
const TARGETS: usize = 9;
const _: () = assert!(Target::Down as usize == TARGETS - 1);

/// Refuses a change whose parts do not have the shape of the base's map.
fn check(delta: &LinearDelta, base: &PackedMatrix) -> Result<(), String> {
    let (out, inp) = (base.out(), base.inp());
    if let Some(LowRank { a, b, bias, .. }) = &delta.low_rank {
        let rank = a.rows;
        if a.cols != inp || b.rows != out || b.cols != rank || rank == 0 {
            return Err(format!(
                "A is {}x{} and B {}x{}, the base {out}x{inp}",
                a.rows, a.cols, b.rows, b.cols
            ));
        }
        check_len("lora_B.bias", bias.as_ref(), out)?;
    }
    check_len("magnitude", delta.magnitude.as_ref(), out)?;
    check_len("bias", delta.base_bias.as_ref(), out)?;
    check_len("gain", delta.gain.as_ref(), out)?;
    if let Some(Matrix { rows, cols, .. }) = delta.replaced
        && (rows, cols) != (out, inp)
    {
        return Err(format!("the new weight is {rows}x{cols}, the base {out}x{inp}"));
    }
    delta.rows.iter().try_for_each(
        |(row, values)| match (*row as usize) < out && values.len() == inp {
            true => Ok(()),
            false => Err(format!(
                "row {row} of {} values, the base {out}x{inp}",
                values.len()
            )),
        },
    )
}

fn check_len(what: &str, values: Option<&Vec<f32>>, len: usize) -> Result<(), String> {
    match values {
        Some(values) if values.len() != len => Err(format!("{what} has {} values for {len}", values.len())),
        _ => Ok(()),
    }
}

fn pack_matrix(values: &[f32], out: usize, inp: usize, dtype: LoraDtype) -> PackedMatrix {
    match dtype {
        LoraDtype::F32 => PackedMatrix::from_f32(values, out, inp),
        // Eight bits are for updates alone: rounding a whole weight changes the output itself, not
        // just a change of it.
        LoraDtype::Bf16 | LoraDtype::Int8 => PackedMatrix::from_f32_as_bf16(values, out, inp),
    }
}

impl PackedLinear {
    fn new(delta: &LinearDelta, base: &PackedMatrix, base_bias: Option<&[f32]>, dtype: LoraDtype) -> Self {
        let low_rank = delta.low_rank.as_ref();
        let gained = |mut values: Vec<f32>| {
            let gain = delta.gain.iter().flatten();
            values
                .iter_mut()
                .zip(gain)
                .for_each(|(value, gain)| *value *= gain);
            values
        };
        let dora = delta.magnitude.as_ref().map(|m| dora_gain(m, base, low_rank));
        // The base's bias is copied only where a gain scales it.
        let bias = delta
            .base_bias
            .clone()
            .or_else(|| delta.gain.as_ref().and(base_bias).map(<[f32]>::to_vec));
        let scaled = |bias: &Vec<f32>, scaling: f32| bias.iter().map(|b| b * scaling).collect();
        let rows: (Vec<u32>, Vec<&[f32]>) = delta
            .rows
            .iter()
            .map(|(row, values)| (*row, values.as_slice()))
            .unzip();
        Self {
            lora: low_rank.map(|l| PackedLora::stacked(&l.a.values, &l.b.values, l.scalings(), dtype)),
            gain: dora.map(gained).or_else(|| delta.gain.clone()),
            addend: low_rank.and_then(|l| l.bias.as_ref().map(|bias| gained(scaled(bias, l.scaling)))),
            bias: bias.map(gained),
            replaced: delta
                .replaced
                .as_ref()
                .filter(|m| !is_copy(m, base))
                .map(|m| pack_matrix(&m.values, m.rows, m.cols, dtype)),
            rows: (!rows.0.is_empty()).then(|| {
                (
                    rows.0.clone(),
                    pack_matrix(&rows.1.concat(), rows.0.len(), base.inp(), dtype),
                )
            }),
        }
    }

    fn unscalable(&self) -> Option<&'static str> {
        let all = [
            (self.gain.is_some(), "scaled outputs (of DoRA or IA³)"),
            (self.bias.is_some(), "biases in the base's stead"),
            (self.replaced.is_some(), REPLACED),
            (self.rows.is_some(), TOKEN_ROWS),
        ];
        all.into_iter().find_map(|(has, what)| has.then_some(what))
    }

    fn bytes(&self) -> usize {
        let vector = |v: &Option<Vec<f32>>| v.as_ref().map_or(0, |v| size_of_val(v.as_slice()));
        self.lora.as_ref().map_or(0, PackedLora::bytes)
            + vector(&self.gain)
            + vector(&self.addend)
            + vector(&self.bias)
            + self.replaced.as_ref().map_or(0, PackedMatrix::bytes)
            + self.rows.as_ref().map_or(0, |(_, rows)| rows.bytes())
    }
}

/// Whether an adapter's matrix is a copy of the base's, as PEFT saves beside LoRA on tables.
/// Packing the copy would multiply the adapter's size.
pub(crate) fn is_copy(matrix: &Matrix, base: &PackedMatrix) -> bool {
    let mut row = vec![0.0; base.inp()];
    let same_shape = (matrix.rows, matrix.cols) == (base.out(), base.inp());
    let mut rows = matrix.values.chunks_exact(matrix.cols).enumerate();
    same_shape
        && rows.all(|(o, values)| {
            base.row(o, &mut row);
            row == values
        })
}

/// `m / ‖W + s·B·A‖`, where the norm is over each output's row.
fn dora_gain(magnitude: &[f32], base: &PackedMatrix, low_rank: Option<&LowRank>) -> Vec<f32> {
    let mut row = vec![0.0; base.inp()];
    let scalings = low_rank.map_or_else(Vec::new, LowRank::scalings);
    magnitude
        .iter()
        .enumerate()
        .map(|(o, m)| {
            base.row(o, &mut row);
            if let Some(LowRank { a, b, .. }) = low_rank {
                let b = &b.values[o * b.cols..][..b.cols];
                for ((b, a), scaling) in b.iter().zip(a.values.chunks_exact(a.cols)).zip(&scalings) {
                    row.iter_mut().zip(a).for_each(|(w, a)| *w += scaling * b * a);
                }
            }
            let square: f64 = row.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
            (f64::from(*m) / square.sqrt()) as f32
        })
        .collect()
}

impl PackedEmbedding {
    fn new(delta: &EmbeddingDelta, base: &PackedMatrix) -> Self {
        let replaced = delta.replaced.as_ref().filter(|m| !is_copy(m, base));
        Self {
            replaced: replaced.map(|m| PackedMatrix::from_f32(&m.values, m.rows, m.cols)),
            rows: delta.rows.iter().cloned().collect(),
            low_rank: delta.low_rank.as_ref().map(|l| {
                let (rank, vocab) = (l.a.rows, l.a.cols);
                let a = (0..vocab)
                    .flat_map(|t| (0..rank).map(move |r| l.a.values[r * vocab + t]))
                    .collect();
                EmbeddingLowRank {
                    rank,
                    a,
                    b: l.b.values.clone(),
                    scalings: l.scalings(),
                }
            }),
        }
    }

    fn unscalable(&self) -> Option<&'static str> {
        let all = [
            (self.replaced.is_some(), REPLACED),
            (!self.rows.is_empty(), TOKEN_ROWS),
        ];
        all.into_iter().find_map(|(has, what)| has.then_some(what))
    }

    fn bytes(&self) -> usize {
        self.replaced.as_ref().map_or(0, PackedMatrix::bytes)
            + self
                .rows
                .values()
                .map(|row| size_of_val(row.as_slice()))
                .sum::<usize>()
            + self
                .low_rank
                .as_ref()
                .map_or(0, |l| size_of_val(l.a.as_slice()) + size_of_val(l.b.as_slice()))
    }

    /// Writes the embedding of `token`, `[hidden]`, before the model's embedding scale. `scale` is
    /// the factor of the update.
    pub(crate) fn embed(&self, token: u32, scale: f32, base: &PackedMatrix, to: &mut [f32]) {
        match self.rows.get(&token) {
            Some(row) => to.copy_from_slice(row),
            None => self.replaced.as_ref().unwrap_or(base).row(token as usize, to),
        }
        if let Some(EmbeddingLowRank { rank, a, b, scalings }) = &self.low_rank {
            let a = &a[token as usize * rank..][..*rank];
            let h: Vec<f32> = a
                .iter()
                .zip(scalings)
                .map(|(a, scaling)| scaling * scale * a)
                .collect();
            for (to, b) in to.iter_mut().zip(b.chunks_exact(*rank)) {
                *to += h.iter().zip(b).map(|(h, b)| h * b).sum::<f32>();
            }
        }
    }
}
