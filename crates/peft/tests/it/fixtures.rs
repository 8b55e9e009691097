//! Adapters saved by PEFT, for all architectures: each is accepted and means what its config says.

use std::fs;
use std::path::{Path, PathBuf};

use multigraft_model::{Config, EmbeddingDelta, LinearDelta, LinearId, LowRank, Target};
use multigraft_peft::{AdapterFile, read};
use serde_json::Value;

/// The folders of `fixtures/peft` and `fixtures/peft_extra`.
fn models() -> Vec<PathBuf> {
    let folders = ["peft", "peft_extra"].map(|set| multigraft_testing::fixtures().join(set));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut models: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.join("adapters").is_dir());
    models.sort();
    models
}

fn config(model: &Path) -> Config {
    Config::from_hf_json(&fs::read_to_string(model.join("model/config.json")).unwrap()).unwrap()
}

fn adapter(model: &str, kind: &str) -> AdapterFile {
    let model = multigraft_testing::fixtures().join(model);
    read(&model.join("adapters").join(kind), &config(&model)).unwrap()
}

fn updates(file: &AdapterFile) -> impl Iterator<Item = (LinearId, &LowRank)> {
    file.weights
        .linears
        .iter()
        .filter_map(|(id, delta)| Some((*id, delta.low_rank.as_ref()?)))
}

fn linear(file: &AdapterFile, id: LinearId) -> &LinearDelta {
    &file
        .weights
        .linears
        .iter()
        .find(|(other, _)| *other == id)
        .unwrap()
        .1
}

fn head(file: &AdapterFile) -> Option<&LinearDelta> {
    file.weights
        .linears
        .iter()
        .find(|(id, _)| *id == LinearId::LmHead)
        .map(|(_, delta)| delta)
}

fn embedding(file: &AdapterFile) -> &EmbeddingDelta {
    file.weights.embedding.as_ref().unwrap()
}

#[test]
fn every_adapter_is_taken_and_has_the_settings_it_was_made_with() {
    let mut count = 0;
    for model in models() {
        let (config, kinds) = (
            config(&model),
            fs::read_to_string(model.join("kinds.json")).unwrap(),
        );
        let kinds: Value = serde_json::from_str(&kinds).unwrap();
        for (kind, settings) in kinds.as_object().unwrap() {
            let name = format!("{}/{kind}", model.display());
            let file =
                read(&model.join("adapters").join(kind), &config).unwrap_or_else(|e| panic!("{name}: {e}"));
            count += 1;

            let (rank, alpha) = (
                settings["r"].as_u64().unwrap() as f32,
                settings["lora_alpha"].as_f64().unwrap() as f32,
            );
            let divisor = if settings["use_rslora"] == true {
                rank.sqrt()
            } else {
                rank
            };
            for (id, update) in updates(&file) {
                assert_eq!(update.a.rows, update.b.cols, "{name}: {id:?}");
                if settings.get("rank_pattern").is_none() {
                    assert_eq!(
                        (update.a.rows as f32, update.scaling),
                        (rank, alpha / divisor),
                        "{name}: {id:?}"
                    );
                }
                assert_eq!(
                    update.bias.is_some(),
                    settings["lora_bias"] == true,
                    "{name}: {id:?}"
                );
            }
            let dora = updates(&file).all(|(id, _)| linear(&file, id).magnitude.is_some());
            assert_eq!(dora, settings["use_dora"] == true, "{name}");

            let copies = fs::read(
                model
                    .join("adapters")
                    .join(kind)
                    .join("adapter_model.safetensors"),
            )
            .unwrap();
            let has_copy = String::from_utf8_lossy(&copies).contains("base_layer.weight");
            assert_eq!(
                file.info.warnings.len(),
                usize::from(has_copy),
                "{name}: {:?}",
                file.info.warnings
            );
            assert!(file.weights.linears.is_sorted_by_key(|(id, _)| *id), "{name}");
        }
    }
    assert!(count >= 13 * 12 + 30, "only {count} adapters");
}

#[test]
fn patterns_set_rank_and_scaling_of_single_modules() {
    let file = adapter("peft/llama", "patterns");
    let at = |layer, target| {
        linear(&file, LinearId::Layer { layer, target })
            .low_rank
            .as_ref()
            .unwrap()
    };
    for layer in 0..4 {
        for (target, rank, alpha) in [
            (
                Target::Q,
                if layer == 1 { 12 } else { 4 },
                if layer == 2 { 3.0 } else { 8.0 },
            ),
            (Target::O, 2, 5.0),
            (Target::K, 4, 8.0),
        ] {
            let update = at(layer, target);
            assert_eq!(
                (update.a.rows, update.scaling),
                (rank, alpha / rank as f32),
                "layer {layer} {target:?}"
            );
        }
    }
    assert_eq!(file.info.ranks, Some((2, 12)));
}

#[test]
fn only_the_chosen_layers_change() {
    assert_eq!(adapter("peft/llama", "layers_1_3").info.layers, [1, 3]);
    assert_eq!(adapter("peft/llama", "regex").info.layers, [0, 2]);
    assert_eq!(adapter("peft/llama", "qv_r4").info.layers, [0, 1, 2, 3]);
}

#[test]
fn fused_matrices_are_targets_of_their_own() {
    let file = adapter("peft/phi3", "all_r8");
    let targets: Vec<Target> = updates(&file)
        .filter_map(|(id, _)| match id {
            LinearId::Layer { layer: 0, target } => Some(target),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [Target::Qkv, Target::O, Target::GateUp, Target::Down]);
}

#[test]
fn both_ends_of_the_model_take_updates() {
    let file = adapter("peft/llama", "head_embed");
    let update = embedding(&file).low_rank.as_ref().unwrap();
    assert_eq!(
        (update.a.rows, update.a.cols, update.b.rows, update.b.cols),
        (4, 47, 32, 4)
    );
    assert!(head(&file).unwrap().low_rank.is_some());
    assert_eq!(file.info.targets, ["embed_tokens", "q_proj", "lm_head"]);
}

#[test]
fn a_saved_head_replaces_the_head_alone() {
    for model in ["peft/llama", "peft/qwen2", "peft_extra/tied"] {
        let file = adapter(model, "save_head");
        let saved = head(&file).unwrap().replaced.as_ref().unwrap();
        assert_eq!((saved.rows, saved.cols), (47, 32));
        assert_eq!(file.weights.embedding, None, "{model}");
    }
}

#[test]
fn a_saved_embedding_replaces_the_head_only_if_tied_on_purpose() {
    let alone = adapter("peft_extra/tied", "save_embed");
    assert!(embedding(&alone).replaced.is_some() && head(&alone).is_none());
    let tied = adapter("peft_extra/tied", "save_embed_tied");
    assert_eq!(embedding(&tied).replaced, head(&tied).unwrap().replaced);
    let both = adapter("peft_extra/tied", "save_both");
    assert!(head(&both).unwrap().replaced.is_some());
    assert_ne!(embedding(&both).replaced, head(&both).unwrap().replaced);
}

#[test]
fn trained_tokens_are_rows_of_a_tied_head_too() {
    let untied = adapter("peft/llama", "tokens");
    let tokens: Vec<u32> = embedding(&untied).rows.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [3, 17, 42]);
    assert!(head(&untied).is_none());
    for (model, kind) in [
        ("peft/qwen2", "tokens"),
        ("peft_extra/tied", "tokens"),
        ("peft_extra/tied", "tokens_embed"),
    ] {
        let tied = adapter(model, kind);
        assert_eq!(embedding(&tied).rows, head(&tied).unwrap().rows, "{model}/{kind}");
    }
}

#[test]
fn an_update_of_a_tied_embedding_leaves_the_head_alone_unless_tied_on_purpose() {
    let alone = adapter("peft_extra/tied", "lora_embed");
    assert!(embedding(&alone).low_rank.is_some() && head(&alone).unwrap().low_rank.is_none());
    let tied = adapter("peft_extra/tied", "lora_embed_tied");
    let (e, h) = (
        embedding(&tied).low_rank.as_ref().unwrap(),
        head(&tied).unwrap().low_rank.as_ref().unwrap(),
    );
    assert_eq!((h.a.rows, h.a.cols, h.b.rows, h.b.cols), (4, 32, 47, 4));
    assert_eq!(h.scaling, e.scaling);
    // The head's A is the embedding's B, transposed.
    assert_eq!(h.a.values[1], e.b.values[4]);
    let head_only = adapter("peft_extra/tied", "lora_head");
    assert!(head(&head_only).unwrap().low_rank.is_some() && embedding(&head_only).low_rank.is_none());
}

#[test]
fn biases_are_replaced_where_they_were_trained() {
    let biased = |kind| {
        let file = adapter("peft_extra/bias", kind);
        let all = file
            .weights
            .linears
            .iter()
            .filter(|(_, delta)| delta.base_bias.is_some());
        let layer: Vec<LinearId> = all
            .map(|(id, _)| *id)
            .filter(|id| matches!(id, LinearId::Layer { layer: 1, .. }))
            .collect();
        layer.len()
    };
    assert_eq!(
        (
            biased("all_r4"),
            biased("bias_lora_only"),
            biased("bias_all"),
            biased("dora_bias_all")
        ),
        (0, 3, 7, 7)
    );
}

#[test]
fn inspect_shows_what_there_is() {
    insta::assert_snapshot!("patterns", adapter("peft/llama", "patterns").info);
    insta::assert_snapshot!("dora_bias_all", adapter("peft_extra/bias", "dora_bias_all").info);
    insta::assert_snapshot!("head_embed", adapter("peft/llama", "head_embed").info);
    insta::assert_snapshot!(
        "tokens_json",
        serde_json::to_string_pretty(&adapter("peft/qwen2", "tokens").info).unwrap()
    );
}
