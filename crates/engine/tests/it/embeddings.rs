//! Embeddings against transformers and PEFT (`fixtures/embeddings`): every architecture, every kind
//! of adapter, both poolings, among requests that generate, in steps of a few rows; and the same
//! bits alone.

use std::sync::Arc;

use multigraft_engine::{AdapterUse, EngineOptions, Pooling, Request, Sampling};
use multigraft_weights::safetensors::Checkpoint;

use crate::served::{Served, answer, sorted, submit};

/// Largest deviation of a component, relative to the largest component.
const TOLERANCE: f32 = 2e-4;

const POOLINGS: [(&str, Pooling); 2] = [("mean", Pooling::Mean), ("last", Pooling::Last)];

#[test]
fn embeddings_are_those_of_peft_mixed_and_alone() {
    let fixtures = multigraft_testing::fixtures();
    let folders = sorted(&fixtures.join("peft"));
    assert!(folders.len() >= 13);
    for folder in folders {
        let model = folder.file_name().unwrap().to_str().unwrap();
        let prompts = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let reference = fixtures.join(format!("embeddings/{model}.safetensors"));
        let reference = Checkpoint::open_file(&reference).unwrap();
        let served = Served::fixture(&folder);
        let mixed = served.engine(
            2,
            64,
            EngineOptions {
                step_tokens: 13,
                ..EngineOptions::default()
            },
        );
        let alone = served.engine(1, 64, EngineOptions::default());

        let mut cases = Vec::new();
        let adapters = served.adapters.iter();
        let adapters =
            adapters.map(|(name, adapter)| (name.as_str(), Some(AdapterUse::from(Arc::clone(adapter)))));
        for (name, adapter) in [("base", None)].into_iter().chain(adapters) {
            for prompt in 0.. {
                let Some(tokens) = prompts.i64s(&format!("prompt.{prompt}")) else {
                    break;
                };
                let tokens: Vec<u32> = tokens.into_iter().map(|id| u32::try_from(id).unwrap()).collect();
                for (pooled, pooling) in POOLINGS {
                    let request = Request {
                        adapter: adapter.clone(),
                        ..Request::embedding(tokens.clone(), pooling)
                    };
                    cases.push((format!("{name}.{prompt}.{pooled}"), request));
                }
            }
        }
        let answers: Vec<_> = cases
            .iter()
            .flat_map(|(_, request)| {
                let generation = Request {
                    adapter: request.adapter.clone(),
                    sampling: Sampling::greedy(),
                    ..Request::new(request.prompt.clone(), 3)
                };
                [submit(&mixed, request.clone()), submit(&mixed, generation)]
            })
            .collect();
        for ((name, request), events) in cases.into_iter().zip(answers.iter().step_by(2)) {
            let got = answer(events).embedding;
            let expected = reference.tensor(&name).unwrap().to_f32();
            assert_eq!(got.len(), expected.len());
            let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (got, expected) in got.iter().zip(&expected) {
                let deviation = (got - expected).abs() / largest;
                assert!(deviation <= TOLERANCE, "{model}, {name}: {deviation}");
            }
            assert_eq!(got, answer(&submit(&alone, request)).embedding, "{model}, {name}");
        }
        mixed.shutdown();
        alone.shutdown();
    }
}
