//! The work of steps of real models.

use std::path::Path;

use multigraft_cpu::{CpuBase, LoadOptions};
use multigraft_model::{Base as _, KvDtype, ModelError, ModelFiles};
use multigraft_planner::{Cost, Rows};
use multigraft_testing::{fixtures, smollm2};

fn cost(path: &Path) -> Result<(CpuBase, Cost), ModelError> {
    let options = LoadOptions {
        threads: 1,
        ..LoadOptions::default()
    };
    let base = CpuBase::open(path, &options)?;
    let cost = Cost::of(&base, &ModelFiles::open(path)?, KvDtype::Bf16);
    Ok((base, cost))
}

#[test]
fn a_decode_step_of_smollm2_reads_its_weights_and_does_two_operations_for_each() {
    let (model, cost) = cost(&smollm2()).expect("the model");
    let step = cost.step(&[Rows {
        start: 0,
        count: 1,
        wanted: 1,
    }]);
    let weights = model.bytes() as f64;
    assert!((weights..weights * 1.001).contains(&step.bytes), "{step:?}");
    // 134.5 million weights, nearly all of them in matrices.
    assert!((2.68e8..2.70e8).contains(&step.int8), "{step:?}");
    // One position: query times key and weight times value in 30 layers of 9 heads of 64.
    assert_eq!(step.f32 + step.bf16, f64::from(4 * 30 * 9 * 64));
}

#[test]
fn rows_share_reading_and_logits_cost_only_where_they_are_wanted() {
    let (_, cost) = cost(&smollm2()).expect("the model");
    let step = |count, wanted| {
        cost.step(&[Rows {
            start: 0,
            count,
            wanted,
        }])
    };
    assert!(step(8, 1).bytes < 1.01 * step(1, 1).bytes);
    assert!(step(8, 0).bytes < step(8, 1).bytes);
    // The tied table is 28.3 million weights.
    assert_eq!(step(8, 8).int8 - step(8, 1).int8, 7.0 * 2.0 * 49_152.0 * 576.0);
}

#[test]
fn experts_that_no_row_selects_are_not_read() {
    let (model, cost) = cost(&fixtures().join("peft/qwen3_moe/model")).expect("the model");
    let bytes = |count| {
        cost.step(&[Rows {
            start: 0,
            count,
            wanted: 1,
        }])
        .bytes
    };
    assert!(bytes(1) < 0.95 * bytes(100), "{} {}", bytes(1), bytes(100));
    assert!(bytes(1) < model.bytes() as f64);
}
