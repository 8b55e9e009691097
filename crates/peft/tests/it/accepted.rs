//! Equivalent configs and files that are accepted, and warnings.

use multigraft_model::{LinearDelta, LinearId, Target};
use serde_json::json;

use crate::support::{Adapter, HIDDEN, ReadFor as _, VOCAB, WIDTH, base};

const Q0: LinearId = LinearId::Layer {
    layer: 0,
    target: Target::Q,
};

fn delta(adapter: &Adapter, tied: bool, id: LinearId) -> LinearDelta {
    let file = adapter.read(&base(tied)).unwrap();
    file.weights
        .linears
        .into_iter()
        .find(|(other, _)| *other == id)
        .unwrap()
        .1
}

#[test]
fn every_spelling_of_the_names_is_the_same_adapter() {
    let expected = Adapter::good().read(&base(false)).unwrap().weights.linears;
    let renames: &[&[(&str, &str)]] = &[
        &[
            ("lora_A.weight", "lora_A.default.weight"),
            ("lora_B.weight", "lora_B.default.weight"),
        ],
        &[("base_model.model.", "")],
        &[("base_model.model.model.", "base_model.model.")],
        &[("base_model.model.model.", "")],
        &[(
            "base_model.model.model.",
            "base_model.model.model.language_model.",
        )],
        &[(
            "base_model.model.model.",
            "base_model.model.language_model.model.",
        )],
    ];
    for renames in renames {
        let mut adapter = Adapter::good();
        renames.iter().for_each(|(from, to)| adapter.rename(from, to));
        let file = adapter
            .read(&base(false))
            .unwrap_or_else(|e| panic!("{renames:?}: {e}"));
        assert_eq!(file.weights.linears, expected, "{renames:?}");
    }
}

#[test]
fn patterns_are_for_the_paths_of_training() {
    let mut adapter = Adapter::good();
    adapter.rename(
        "base_model.model.model.",
        "base_model.model.model.language_model.",
    );
    adapter.config["target_modules"] =
        json!(r"model\.language_model\.layers\.\d+\.(self_attn\.q|mlp\.down)_proj");
    adapter.config["alpha_pattern"] = json!({r"^model\.language_model\.layers\.0\..*": 6});
    assert_eq!(delta(&adapter, false, Q0).low_rank.unwrap().scaling, 3.0);
    adapter.config["target_modules"] = json!(r"(?!.*vision).*\.(q|down)_proj");
    adapter.read(&base(false)).unwrap();
    adapter.config["target_modules"] = json!(r"model\.layers\..*\.(q|down)_proj");
    assert!(adapter.read(&base(false)).is_err());
}

#[test]
fn targets_that_are_not_said_are_those_that_have_tensors() {
    let mut adapter = Adapter::good();
    adapter.config["target_modules"] = json!(null);
    adapter.lora("model.layers.1.mlp.up_proj", WIDTH, HIDDEN);
    assert_eq!(adapter.read(&base(false)).unwrap().weights.linears.len(), 5);
}

#[test]
fn numbers_arrive_where_they_belong() {
    let adapter = Adapter::good();
    let update = delta(&adapter, false, Q0).low_rank.unwrap();
    assert_eq!(
        update.a.values,
        adapter.values("0.self_attn.q_proj.lora_A.weight")
    );
    assert_eq!(
        update.b.values,
        adapter.values("0.self_attn.q_proj.lora_B.weight")
    );
    assert_eq!(
        (update.a.rows, update.a.cols, update.b.rows, update.b.cols),
        (2, HIDDEN, HIDDEN, 2)
    );
    assert_eq!((update.scaling, update.bias), (2.0, None));
}

#[test]
fn a_bias_of_the_base_is_replaced_by_either_name() {
    for name in ["base_layer.bias", "bias"] {
        let mut adapter = Adapter::good();
        adapter.config["bias"] = json!("lora_only");
        for layer in 0..2 {
            adapter.tensor(
                &format!("model.layers.{layer}.self_attn.q_proj.{name}"),
                &[HIDDEN],
            );
        }
        let values = adapter.values(&format!("0.self_attn.q_proj.{name}"));
        assert_eq!(delta(&adapter, false, Q0).base_bias, Some(values), "{name}");
    }
}

#[test]
fn a_saved_head_is_read_by_either_name() {
    for name in ["lm_head.weight", "lm_head.modules_to_save.default.weight"] {
        let mut adapter = Adapter::good();
        adapter.config["modules_to_save"] = json!(["lm_head"]);
        adapter.tensor(name, &[VOCAB, HIDDEN]);
        let file = adapter.read(&base(true)).unwrap();
        assert_eq!(file.weights.linears.last().unwrap().0, LinearId::LmHead);
        assert_eq!(file.weights.embedding, None, "{name}");
        assert_eq!(file.info.warnings, Vec::<String>::new(), "{name}");
    }
}

/// PEFT loads such a copy over the base's own weight, which both tables share if embeddings are
/// tied.
#[test]
fn a_copy_of_a_tied_table_replaces_both_ends() {
    for name in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "lm_head.base_layer.weight",
    ] {
        let mut adapter = Adapter::good();
        adapter.tensor(name, &[VOCAB, HIDDEN]);
        for tied in [true, false] {
            let file = adapter.read(&base(tied)).unwrap();
            let head = file
                .weights
                .linears
                .iter()
                .find(|(id, _)| *id == LinearId::LmHead);
            let embedding = file
                .weights
                .embedding
                .as_ref()
                .and_then(|delta| delta.replaced.as_ref());
            let head = head.and_then(|(_, delta)| delta.replaced.as_ref());
            assert_eq!(embedding.is_some(), tied || name.starts_with("model"), "{name}");
            assert_eq!(head.is_some(), tied || name.starts_with("lm_head"), "{name}");
            let table = embedding.or(head).unwrap();
            assert_eq!(table.values, adapter.values(name));
            assert!(
                file.info.warnings[0].contains("save_embedding_layers"),
                "{:?}",
                file.info.warnings
            );
        }
    }
}

#[test]
fn tokens_of_a_tied_head_can_be_others_than_the_embeddings() {
    let mut adapter = Adapter::good();
    adapter.config["trainable_token_indices"] = json!({"embed_tokens": [1, 4], "lm_head": [9]});
    adapter.tensor(
        "model.embed_tokens.token_adapter.trainable_tokens_delta",
        &[2, HIDDEN],
    );
    adapter.tensor("lm_head.token_adapter.trainable_tokens_delta", &[1, HIDDEN]);
    for tied in [true, false] {
        let file = adapter.read(&base(tied)).unwrap();
        let tokens =
            |rows: &[(u32, Vec<f32>)]| -> Vec<u32> { rows.iter().map(|(token, _)| *token).collect() };
        assert_eq!(tokens(&file.weights.embedding.unwrap().rows), [1, 4]);
        assert_eq!(tokens(&file.weights.linears.last().unwrap().1.rows), [9]);
    }
}

#[test]
fn rows_keep_the_order_of_their_list() {
    let mut adapter = Adapter::good();
    adapter.config["trainable_token_indices"] = json!([7, 2]);
    adapter.tensor(
        "model.embed_tokens.token_adapter.trainable_tokens_delta",
        &[2, HIDDEN],
    );
    let values = adapter.values("trainable_tokens_delta");
    let rows = adapter
        .read(&base(false))
        .unwrap()
        .weights
        .embedding
        .unwrap()
        .rows;
    assert_eq!(
        rows,
        [(7, values[..HIDDEN].to_vec()), (2, values[HIDDEN..].to_vec())]
    );
}

#[test]
fn what_may_surprise_is_a_warning() {
    type Case = (&'static str, fn(&mut Adapter));
    let cases: [Case; 4] = [
        ("acme/other", |a| {
            a.config["base_model_name_or_path"] = json!("acme/other")
        }),
        ("lora_alpha is 0", |a| a.config["lora_alpha"] = json!(0)),
        ("`classifier`", |a| {
            a.config["modules_to_save"] = json!(["classifier"])
        }),
        ("was it trained", |a| {
            let of_b = a
                .tensors
                .iter_mut()
                .filter(|(name, _, _)| name.contains("lora_B"));
            of_b.for_each(|(_, _, values)| values.fill(0.0));
        }),
    ];
    for (words, change) in cases {
        let mut adapter = Adapter::good();
        change(&mut adapter);
        let warnings = adapter.read(&base(false)).unwrap().info.warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(words), "{warnings:?}");
    }
}

#[test]
fn a_base_that_is_not_named_or_local_is_no_warning() {
    for name in [
        json!(null),
        json!(""),
        json!("/data/models/other"),
        json!("../other"),
    ] {
        let mut adapter = Adapter::good();
        adapter.config["base_model_name_or_path"] = name;
        assert_eq!(
            adapter.read(&base(false)).unwrap().info.warnings,
            Vec::<String>::new()
        );
    }
}

/// The hash of an adapter does not depend on its folder.
#[test]
fn the_hash_is_of_the_contents() {
    let (one, mut two) = (Adapter::good(), Adapter::good());
    let hash = |adapter: &Adapter| adapter.read(&base(false)).unwrap().weights.hash;
    assert_eq!(hash(&one), hash(&one));
    two.config["lora_dropout"] = json!(0.1);
    assert_ne!(hash(&one), hash(&two));
    let mut three = Adapter::good();
    three.find("1.mlp.down_proj.lora_B.weight").2[0] += 1.0;
    assert_ne!(hash(&one), hash(&three));
}
