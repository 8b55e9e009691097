//! Everything that is refused, with its message. The messages are in `snapshots/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use multigraft_peft::read_for;
use serde_json::{Value, json};

use crate::support::{Adapter, HIDDEN, ReadFor as _, VOCAB, WIDTH, base, message, safetensors};

const Q: &str = "model.layers.0.self_attn.q_proj";

/// A change that makes a good adapter invalid.
type Case = (&'static str, fn(&mut Adapter));

fn refusals(tied: bool, cases: &[Case]) -> String {
    let base = base(tied);
    let mut text = String::new();
    for (name, spoil) in cases {
        let mut adapter = Adapter::good();
        spoil(&mut adapter);
        writeln!(text, "{name}:\n    {}", adapter.refusal(&base)).unwrap();
    }
    text
}

fn set(adapter: &mut Adapter, field: &str, value: Value) {
    adapter.config[field] = value;
}

#[test]
fn the_adapter_that_the_cases_spoil_is_good() {
    for tied in [false, true] {
        let file = Adapter::good().read(&base(tied)).unwrap();
        assert_eq!(file.info.warnings, Vec::<String>::new());
        assert_eq!(file.weights.linears.len(), 4);
    }
}

#[test]
fn configs() {
    let cases: &[Case] = &[
        ("empty file", |a| a.raw_config = Some(Vec::new())),
        ("truncated", |a| {
            a.raw_config = Some(br#"{"peft_type": "LORA", "r": "#.to_vec())
        }),
        ("not UTF-8", |a| {
            a.raw_config = Some(b"{\"peft_type\": \"\xff\"}".to_vec())
        }),
        ("a list", |a| a.raw_config = Some(b"[]".to_vec())),
        ("too large", |a| a.raw_config = Some(vec![b' '; (1 << 20) + 1])),
        ("no peft_type", |a| set(a, "peft_type", Value::Null)),
        ("X-LoRA", |a| set(a, "peft_type", json!("XLORA"))),
        ("task", |a| set(a, "task_type", json!("SEQ_CLS"))),
        ("type of a flag", |a| set(a, "use_rslora", json!("yes"))),
        ("type of a list", |a| set(a, "target_modules", json!([1]))),
        ("type of a mapping", |a| set(a, "rank_pattern", json!([8]))),
        ("type of a number", |a| set(a, "lora_alpha", json!("16"))),
        ("type of layers", |a| set(a, "layers_to_transform", json!([-1]))),
        ("type of tokens", |a| {
            set(a, "trainable_token_indices", json!(["<tool>"]))
        }),
        ("rank 0", |a| set(a, "r", json!(0))),
        ("rank below 0", |a| set(a, "r", json!(-8))),
        ("rank of a fraction", |a| set(a, "r", json!(2.5))),
        ("absurd rank", |a| set(a, "r", json!(1_000_000_000))),
        ("absurd rank of a module", |a| {
            set(a, "rank_pattern", json!({"q_proj": 4097}))
        }),
        ("bias", |a| set(a, "bias", json!("some"))),
        ("fan_in_fan_out", |a| set(a, "fan_in_fan_out", json!(true))),
        ("layer_replication", |a| {
            set(a, "layer_replication", json!([[0, 1], [0, 2]]))
        }),
        ("target_parameters", |a| {
            set(a, "target_parameters", json!(["mlp.experts.down_proj"]))
        }),
        ("PiSSA", |a| set(a, "init_lora_weights", json!("pissa_niter_4"))),
        ("aLoRA", |a| set(a, "alora_invocation_tokens", json!("x"))),
        ("aLoRA of too many tokens", |a| {
            set(a, "alora_invocation_tokens", json!(vec![1; 1025]));
        }),
        ("aLoRA with biases", |a| {
            set(a, "alora_invocation_tokens", json!([1]));
            set(a, "bias", json!("all"));
        }),
        ("aLoRA on the embedding", |a| {
            set(a, "alora_invocation_tokens", json!([1]));
            set(
                a,
                "target_modules",
                json!(["q_proj", "down_proj", "embed_tokens"]),
            );
            a.lora_embedding();
        }),
        ("Megatron", |a| {
            set(a, "megatron_config", json!({"tensor_model_parallel_size": 2}))
        }),
        ("QALoRA", |a| set(a, "use_qalora", json!(true))),
        ("BD-LoRA", |a| set(a, "use_bdlora", json!({"nblocks": 2}))),
        ("Arrow", |a| set(a, "arrow_config", json!({"top_k": 3}))),
        ("VeLoRA", |a| set(a, "velora_config", json!({"num_groups": 64}))),
        ("KaSA", |a| set(a, "kasa_config", json!({"beta": 0.1}))),
        ("MonteCLoRA", |a| {
            set(a, "monteclora_config", json!({"num_samples": 8}))
        }),
        ("a merged matrix", |a| {
            set(a, "enable_lora", json!([true, false, true]))
        }),
        ("unknown switch", |a| set(a, "use_next_years_lora", json!(true))),
        ("unknown number", |a| set(a, "next\nyear", json!(0))),
        ("DoRA with lora_bias", |a| {
            set(a, "use_dora", json!(true));
            set(a, "lora_bias", json!(true));
        }),
        ("layers of a pattern", |a| {
            set(a, "target_modules", json!(".*q_proj"));
            set(a, "layers_to_transform", json!([0]));
        }),
        ("broken pattern", |a| set(a, "target_modules", json!("(q_proj"))),
        ("broken key", |a| set(a, "alpha_pattern", json!({"(q_proj": 1}))),
        ("too many names", |a| {
            set(a, "modules_to_save", json!(vec!["lm_head"; 65]))
        }),
        ("infinite scaling", |a| set(a, "lora_alpha", json!(1e300))),
    ];
    insta::assert_snapshot!(refusals(false, cases));
}

#[test]
fn tensors() {
    let cases: &[Case] = &[
        ("no tensors", |a| a.tensors.clear()),
        ("another architecture", |a| {
            a.rename("model.layers.", "encoder.block.")
        }),
        ("nothing of LoRA", |a| a.rename("lora_", "vera_")),
        ("another hidden size", |a| {
            for layer in 0..2 {
                a.reshape(&format!("{layer}.self_attn.q_proj.lora_A.weight"), &[2, 4096]);
                a.reshape(&format!("{layer}.mlp.down_proj.lora_B.weight"), &[4096, 2]);
            }
        }),
        ("another layer's count", |a| {
            a.lora("model.layers.2.self_attn.q_proj", HIDDEN, HIDDEN)
        }),
        ("an unknown module", |a| {
            a.lora("model.layers.0.self_attn.qq_proj", HIDDEN, HIDDEN)
        }),
        ("a vision tower", |a| {
            a.lora("model.vision_tower.layers.0.self_attn.q_proj", HIDDEN, HIDDEN)
        }),
        ("a stray tensor", |a| {
            a.tensor(&format!("{Q}.lora_C.weight"), &[1])
        }),
        ("a router", |a| a.lora("model.layers.0.mlp.gate", 4, HIDDEN)),
        ("a norm", |a| {
            a.tensor("model.layers.1.input_layernorm.weight", &[HIDDEN])
        }),
        ("a whole matrix", |a| {
            a.tensor("model.layers.0.mlp.up_proj.weight", &[WIDTH, HIDDEN])
        }),
        ("the same twice", |a| {
            a.raw_tensor("model.layers.0.self_attn.q_proj.lora_A.weight", &[2, HIDDEN])
        }),
        ("two adapters", |a| {
            a.find("0.self_attn.q_proj.lora_A.weight").0 = format!("base_model.model.{Q}.lora_A.one.weight");
            a.find("0.self_attn.q_proj.lora_B.weight").0 = format!("base_model.model.{Q}.lora_B.two.weight");
        }),
        ("only A", |a| a.remove("1.mlp.down_proj.lora_B.weight")),
        ("only B", |a| a.remove("1.mlp.down_proj.lora_A.weight")),
        ("only a magnitude", |a| {
            a.tensor("model.layers.0.mlp.up_proj.lora_magnitude_vector", &[WIDTH])
        }),
        ("shape of A", |a| {
            a.reshape("0.self_attn.q_proj.lora_A.weight", &[2, HIDDEN + 1])
        }),
        ("shape of B", |a| {
            a.reshape("0.self_attn.q_proj.lora_B.weight", &[HIDDEN + 1, 2])
        }),
        ("A not gathered", |a| {
            a.reshape("0.self_attn.q_proj.lora_A.weight", &[0])
        }),
        ("A transposed", |a| {
            a.reshape("0.mlp.down_proj.lora_A.weight", &[WIDTH, 2])
        }),
        ("rank of A", |a| {
            a.reshape("0.self_attn.q_proj.lora_A.weight", &[3, HIDDEN])
        }),
        ("rank of B", |a| {
            a.reshape("0.self_attn.q_proj.lora_B.weight", &[HIDDEN, 3])
        }),
        ("rank by pattern", |a| {
            set(a, "rank_pattern", json!({"layers.1.*q_proj": 4}))
        }),
        ("absurd rank for the matrix", |a| {
            set(a, "rank_pattern", json!({"layers.0.self_attn.q_proj": 49}));
            a.reshape("0.self_attn.q_proj.lora_A.weight", &[49, HIDDEN]);
            a.reshape("0.self_attn.q_proj.lora_B.weight", &[HIDDEN, 49]);
        }),
        ("NaN", |a| a.find("1.mlp.down_proj.lora_B.weight").2[3] = f32::NAN),
        ("infinity", |a| {
            a.find("0.self_attn.q_proj.lora_A.weight").2[0] = f32::NEG_INFINITY
        }),
        ("half saved", |a| {
            a.remove("1.mlp.down_proj.lora_A.weight");
            a.remove("1.mlp.down_proj.lora_B.weight");
        }),
        ("not targeted", |a| {
            a.lora("model.layers.0.mlp.up_proj", WIDTH, HIDDEN)
        }),
        ("excluded", |a| {
            set(a, "exclude_modules", json!(["layers.0.mlp.down_proj"]))
        }),
        ("a layer left out", |a| set(a, "layers_to_transform", json!([1]))),
        ("lora_bias missing", |a| set(a, "lora_bias", json!(true))),
        ("lora_bias not asked for", |a| {
            a.tensor(&format!("{Q}.lora_B.bias"), &[HIDDEN])
        }),
        ("magnitude missing", |a| set(a, "use_dora", json!(true))),
        ("magnitude not asked for", |a| {
            a.tensor(&format!("{Q}.lora_magnitude_vector"), &[HIDDEN])
        }),
        ("bias missing", |a| set(a, "bias", json!("lora_only"))),
        ("bias without a base", |a| {
            a.tensor("model.layers.0.mlp.down_proj.base_layer.bias", &[HIDDEN])
        }),
        ("shape of a bias", |a| {
            a.tensor(&format!("{Q}.base_layer.bias"), &[HIDDEN + 1])
        }),
        ("an embedding's on a map", |a| {
            a.tensor(&format!("{Q}.lora_embedding_A"), &[2, HIDDEN])
        }),
        ("a map's on the embedding", |a| {
            a.lora("model.embed_tokens", VOCAB, HIDDEN)
        }),
        ("rows of a map", |a| {
            a.tensor(&format!("{Q}.token_adapter.trainable_tokens_delta"), &[1, HIDDEN])
        }),
    ];
    insta::assert_snapshot!(refusals(false, cases));
}

#[test]
fn tables() {
    let cases: &[Case] = &[
        ("saved module missing", |a| {
            set(a, "modules_to_save", json!(["lm_head"]))
        }),
        ("saved norm", |a| {
            set(a, "modules_to_save", json!(["lm_head", "norm"]))
        }),
        ("saved map", |a| set(a, "modules_to_save", json!(["up_proj"]))),
        ("saved and not named", |a| {
            a.tensor("lm_head.modules_to_save.default.weight", &[VOCAB, HIDDEN])
        }),
        ("shape of a saved module", |a| {
            set(a, "modules_to_save", json!(["lm_head"]));
            a.tensor("lm_head.weight", &[VOCAB + 1, HIDDEN]);
        }),
        ("saved and updated", |a| {
            set(a, "modules_to_save", json!(["lm_head"]));
            a.tensor("lm_head.weight", &[VOCAB, HIDDEN]);
            a.lora("lm_head", VOCAB, HIDDEN);
        }),
        ("a larger vocabulary", |a| {
            a.tensor("model.embed_tokens.weight", &[VOCAB + 2, HIDDEN])
        }),
        ("tokens missing", |a| {
            set(a, "trainable_token_indices", json!([1, 2]))
        }),
        ("tokens not asked for", |a| {
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[2, HIDDEN],
            );
        }),
        ("token of another vocabulary", |a| {
            set(a, "trainable_token_indices", json!([1, 10]));
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[2, HIDDEN],
            );
        }),
        ("token twice", |a| {
            set(a, "trainable_token_indices", json!([7, 7]));
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[2, HIDDEN],
            );
        }),
        ("number of rows", |a| {
            set(a, "trainable_token_indices", json!([1, 2, 3]));
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[2, HIDDEN],
            );
        }),
        ("tokens of a map", |a| {
            set(a, "trainable_token_indices", json!({"q_proj": [1]}))
        }),
        ("tokens of nothing", |a| {
            set(a, "trainable_token_indices", json!({"wte": [1]}))
        }),
        ("tokens twice", |a| {
            set(
                a,
                "trainable_token_indices",
                json!({"embed_tokens": [1], "tokens": [2]}),
            )
        }),
        ("tokens and update", |a| {
            set(a, "trainable_token_indices", json!([1]));
            set(
                a,
                "target_modules",
                json!(["q_proj", "down_proj", "embed_tokens"]),
            );
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[1, HIDDEN],
            );
            a.lora_embedding();
        }),
        ("DoRA of an embedding without its table", |a| {
            *a = Adapter::empty();
            set(a, "use_dora", json!(true));
            set(a, "target_modules", json!(["embed_tokens"]));
            a.lora_embedding();
            a.tensor("model.embed_tokens.lora_magnitude_vector", &[HIDDEN]);
        }),
        ("DoRA of an embedding with a column of zeros", |a| {
            *a = Adapter::empty();
            set(a, "use_dora", json!(true));
            set(a, "target_modules", json!(["embed_tokens"]));
            a.lora_embedding();
            a.reshape("lora_embedding_B", &[HIDDEN, 2]);
            a.find("lora_embedding_B").2.fill(0.0);
            a.tensor("model.embed_tokens.lora_magnitude_vector", &[HIDDEN]);
            a.tensor("model.embed_tokens.base_layer.weight", &[VOCAB, HIDDEN]);
            a.find("base_layer.weight")
                .2
                .iter_mut()
                .step_by(HIDDEN)
                .for_each(|value| *value = 0.0);
        }),
    ];
    insta::assert_snapshot!("tables", refusals(false, cases));
    let cases: &[Case] = &[
        ("two tables for one", |a| {
            set(
                a,
                "target_modules",
                json!(["q_proj", "down_proj", "embed_tokens"]),
            );
            a.lora_embedding();
            a.tensor("model.embed_tokens.base_layer.weight", &[VOCAB, HIDDEN]);
            a.tensor("lm_head.weight", &[VOCAB, HIDDEN]);
        }),
        ("tied tokens of two kinds", |a| {
            set(a, "ensure_weight_tying", json!(true));
            set(
                a,
                "trainable_token_indices",
                json!({"embed_tokens": [1], "lm_head": [2]}),
            );
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[1, HIDDEN],
            );
            a.tensor("lm_head.token_adapter.trainable_tokens_delta", &[1, HIDDEN]);
        }),
        ("tied tokens twice", |a| {
            set(
                a,
                "trainable_token_indices",
                json!({"embed_tokens": [1], "lm_head": [1]}),
            );
            a.tensor(
                "model.embed_tokens.token_adapter.trainable_tokens_delta",
                &[1, HIDDEN],
            );
            a.tensor("lm_head.token_adapter.trainable_tokens_delta", &[1, HIDDEN]);
        }),
        ("tied update not saved for the head", |a| {
            set(a, "ensure_weight_tying", json!(true));
            set(
                a,
                "target_modules",
                json!(["q_proj", "down_proj", "embed_tokens"]),
            );
            a.lora_embedding();
        }),
        ("tied table not saved for the head", |a| {
            set(a, "ensure_weight_tying", json!(true));
            set(a, "modules_to_save", json!(["embed_tokens"]));
            a.tensor("model.embed_tokens.weight", &[VOCAB, HIDDEN]);
        }),
    ];
    insta::assert_snapshot!("tied_tables", refusals(true, cases));
}

#[test]
fn files() {
    /// Fills an empty folder.
    type Case = (&'static str, fn(&Path));
    let cases: &[Case] = &[
        ("nothing", |_| {}),
        ("no such folder", |dir| fs::remove_dir_all(dir).unwrap()),
        ("in a sub-folder", |dir| {
            Adapter::good().write(&dir.join("support"))
        }),
        ("no tensors", |dir| {
            fs::write(dir.join("adapter_config.json"), "{}").unwrap()
        }),
        ("pickled", |dir| {
            Adapter::good().write(dir);
            fs::rename(
                dir.join("adapter_model.safetensors"),
                dir.join("adapter_model.bin"),
            )
            .unwrap();
        }),
        ("a folder for a file", |dir| {
            Adapter::good().write(dir);
            fs::remove_file(dir.join("adapter_model.safetensors")).unwrap();
            fs::create_dir(dir.join("adapter_model.safetensors")).unwrap();
        }),
        ("config too large", |dir| {
            Adapter::good().write(dir);
            let file = fs::File::create(dir.join("adapter_config.json")).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        ("tensors too large", |dir| {
            Adapter::good().write(dir);
            let file = fs::File::create(dir.join("adapter_model.safetensors")).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
        ("empty file of tensors", |dir| {
            Adapter::good().write(dir);
            fs::write(dir.join("adapter_model.safetensors"), "").unwrap();
        }),
        ("truncated", |dir| {
            Adapter::good().write(dir);
            let bytes = Adapter::good().safetensors();
            fs::write(dir.join("adapter_model.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("a corrupt header", |dir| {
            Adapter::good().write(dir);
            let mut bytes = Adapter::good().safetensors();
            bytes[40] = 0xff;
            fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
        }),
        ("a header that lies", |dir| {
            Adapter::good().write(dir);
            fs::write(dir.join("adapter_model.safetensors"), [0xff; 64]).unwrap();
        }),
        ("integers", |dir| {
            Adapter::good().write(dir);
            let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
            let bytes = safetensors(&[(name, "I8", &[2, HIDDEN], vec![0; 2 * HIDDEN])]);
            fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
        }),
    ];
    let mut text = String::new();
    for (name, make) in cases {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let error = read_for(dir.path(), &base(false)).unwrap_err();
        writeln!(text, "{name}:\n    {}", message(&error, dir.path())).unwrap();
    }
    insta::assert_snapshot!(text);
}

/// A variant of LoRA on the first q_proj.
fn variant(adapter: &mut Adapter, kind: &str, tensors: &[(&str, &[usize])]) {
    *adapter = Adapter::empty();
    adapter.config = json!({"peft_type": kind, "r": 2, "alpha": 2, "target_modules": [Q]});
    if kind == "IA3" {
        adapter.config = json!({"peft_type": kind, "target_modules": [Q]});
    }
    for (part, shape) in tensors {
        adapter.tensor(&format!("{Q}.{part}"), shape);
    }
}

/// LoHa of this rank.
fn loha(adapter: &mut Adapter, rank: usize) {
    let (left, right) = ([HIDDEN, rank], [rank, HIDDEN]);
    let parts: [(&str, &[usize]); 4] = [
        ("hada_w1_a", &left),
        ("hada_w1_b", &right),
        ("hada_w2_a", &left),
        ("hada_w2_b", &right),
    ];
    variant(adapter, "LOHA", &parts);
    set(adapter, "r", json!(rank));
}

/// VeRA with its shared matrices.
fn vera(adapter: &mut Adapter) {
    variant(
        adapter,
        "VERA",
        &[("vera_lambda_b", &[HIDDEN]), ("vera_lambda_d", &[2])],
    );
    adapter.config = json!({"peft_type": "VERA", "r": 2, "target_modules": [Q]});
    adapter.raw_tensor("base_model.vera_A", &[2, WIDTH]);
    adapter.raw_tensor("base_model.vera_B", &[WIDTH, 2]);
}

#[test]
fn variants_of_lora() {
    for make in [|a: &mut Adapter| loha(a, 2), vera] {
        let mut adapter = Adapter::empty();
        make(&mut adapter);
        adapter.read(&base(false)).unwrap();
    }
    let cases: &[Case] = &[
        ("LoHa beside LoRA", |a| set(a, "peft_type", json!("LOHA"))),
        ("LoHa of too large a rank", |a| loha(a, 3)),
        ("LoHa without a part", |a| {
            loha(a, 2);
            a.remove("hada_w2_b");
        }),
        ("LoHa of another rank than the config says", |a| {
            loha(a, 2);
            set(a, "r", json!(1));
        }),
        ("LoHa of another base", |a| {
            loha(a, 2);
            a.reshape("hada_w1_b", &[2, HIDDEN + 1]);
        }),
        ("LoHa of a convolution", |a| {
            loha(a, 2);
            a.tensor(&format!("{Q}.hada_t1"), &[2, 2, 3, 3]);
        }),
        ("LoHa for no module", |a| {
            loha(a, 2);
            a.rename("q_proj", "z_proj");
        }),
        ("LoHa for a norm", |a| {
            loha(a, 2);
            a.rename("self_attn.q_proj", "input_layernorm");
        }),
        ("LoHa whose product is infinite", |a| {
            loha(a, 2);
            a.find("hada_w1_b").2 = vec![1e30; 2 * HIDDEN];
            a.find("hada_w2_b").2 = vec![1e30; 2 * HIDDEN];
        }),
        ("LoHa with a field of LoKr's that nobody knows", |a| {
            loha(a, 2);
            set(a, "use_tucker", json!(true));
        }),
        ("LoKr of two whole matrices", |a| {
            variant(a, "LOKR", &[("lokr_w1", &[2, 2]), ("lokr_w2", &[3, 3])])
        }),
        ("LoKr of another base", |a| {
            variant(a, "LOKR", &[("lokr_w1", &[2, 2]), ("lokr_w2", &[4, 3])])
        }),
        ("LoKr that is larger than the base", |a| {
            variant(a, "LOKR", &[("lokr_w1", &[HIDDEN + 1, 2]), ("lokr_w2", &[1, 3])])
        }),
        ("LoKr whole and as a product", |a| {
            variant(
                a,
                "LOKR",
                &[("lokr_w1", &[2, 2]), ("lokr_w1_a", &[2, 2]), ("lokr_w2", &[3, 3])],
            )
        }),
        ("VeRA without projections", |a| {
            vera(a);
            a.remove("vera_A");
        }),
        ("VeRA with projections that are too small", |a| {
            vera(a);
            a.reshape("vera_B", &[HIDDEN - 1, 2]);
        }),
        ("VeRA with other scales", |a| {
            vera(a);
            a.reshape("vera_lambda_d", &[3]);
        }),
        ("IA3 beside LoRA", |a| {
            variant(
                a,
                "IA3",
                &[("ia3_l", &[HIDDEN, 1]), ("lora_A.weight", &[2, HIDDEN])],
            )
        }),
        ("IA3 in a LoRA", |a| a.tensor(&format!("{Q}.ia3_l"), &[HIDDEN, 1])),
        ("IA3 on inputs that nothing scales", |a| {
            variant(a, "IA3", &[("ia3_l", &[1, HIDDEN])])
        }),
        ("IA3 of another base", |a| {
            variant(a, "IA3", &[("ia3_l", &[HIDDEN + 1, 1])])
        }),
        ("IA3 that is not there", |a| {
            variant(a, "IA3", &[("ia3_l", &[HIDDEN, 1])]);
            set(a, "target_modules", json!(["q_proj"]));
        }),
        ("OFT", |a| set(a, "peft_type", json!("OFT"))),
        ("prompt tuning", |a| set(a, "peft_type", json!("PROMPT_TUNING"))),
    ];
    insta::assert_snapshot!(refusals(false, cases));
}

/// A truncated file is never an adapter, and never causes a panic.
#[test]
fn every_truncation_is_refused() {
    let (base, good) = (base(false), Adapter::good());
    let tensors = good.safetensors();
    for len in 0..tensors.len() {
        let cut = Adapter {
            raw_tensors: Some(tensors[..len].to_vec()),
            ..good.clone()
        };
        assert!(cut.read(&base).is_err(), "{len} bytes of tensors");
    }
    let config = good.config.to_string().into_bytes();
    for len in 0..config.len() {
        let cut = Adapter {
            raw_config: Some(config[..len].to_vec()),
            ..good.clone()
        };
        assert!(cut.read(&base).is_err(), "{len} bytes of config");
    }
}

/// A flipped bit causes an error or another hash, never a panic.
#[test]
fn no_flipped_bit_keeps_the_hash() {
    let (base, good) = (base(false), Adapter::good());
    let hash = good.read(&base).unwrap().weights.hash;
    let tensors = good.safetensors();
    for position in (0..tensors.len() * 8).step_by(7) {
        let mut bytes = tensors.clone();
        bytes[position / 8] ^= 1 << (position % 8);
        let flipped = Adapter {
            raw_tensors: Some(bytes),
            ..good.clone()
        };
        if let Ok(file) = flipped.read(&base) {
            assert_ne!(file.weights.hash, hash, "bit {position}");
        }
    }
}

/// The same for the variants that are converted to LoRA.
#[test]
fn no_flipped_bit_of_a_relative_panics() {
    let base = base(false);
    for make in [|a: &mut Adapter| loha(a, 2), vera] {
        let mut good = Adapter::empty();
        make(&mut good);
        let tensors = good.safetensors();
        for bit in (0..tensors.len() * 8).step_by(3) {
            let mut bytes = tensors.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = Adapter {
                raw_tensors: Some(bytes),
                ..good.clone()
            };
            if let Ok(file) = flipped.read(&base) {
                assert!(file.weights.linears.len() <= 1, "bit {bit}");
            }
        }
    }
}
