//! Adapters against PEFT: for every architecture and every kind of adapter in `fixtures/`, the
//! logits of all prompt positions and the greedy continuation, alone and with all adapters and the
//! base mixed in one batch.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_cpu::{BLOCK_TOKENS, CpuBackend, CpuBase, LoadOptions};
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, BlockId, KvDtype, Outputs, Precision, Run, Slot, Step,
    Throttle, Wanted,
};
use multigraft_peft::Form;
use multigraft_weights::safetensors::Checkpoint;

/// Largest deviation of a logit, relative to the largest logit.
const TOLERANCE: f32 = 2e-4;

/// The base or an adapter, as the reference names it.
struct Subject {
    name: String,
    slot: Option<Slot>,
}

struct Case<'a> {
    subject: &'a Subject,
    prompt: usize,
    tokens: Vec<u32>,
    /// At the prompt's positions.
    logits: Vec<f32>,
    greedy: Vec<u32>,
    blocks: Vec<BlockId>,
}

fn folders(set: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(multigraft_testing::fixtures().join(set))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("reference.safetensors").is_file())
        .collect();
    folders.sort();
    folders
}

fn subjects(folder: &Path, backend: &mut CpuBackend, model: &CpuBase) -> Vec<Subject> {
    let mut kinds: Vec<PathBuf> = std::fs::read_dir(folder.join("adapters"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    kinds.sort();
    let mut subjects = vec![Subject {
        name: "base".to_owned(),
        slot: None,
    }];
    for kind in kinds {
        let file = multigraft_peft::read(&kind, model.config())
            .unwrap_or_else(|e| panic!("{}: {e}", kind.display()));
        for dtype in [AdapterDtype::Bf16, AdapterDtype::F32, AdapterDtype::Int8] {
            let packed = model.ready(&file.weights, dtype, &Throttle::NONE).unwrap();
            let known = model.ready_bytes(&file.weights, dtype);
            assert_eq!(known, packed.bytes(), "{}: memory as {dtype:?}", kind.display());
        }
        let packed = model
            .ready(&file.weights, AdapterDtype::F32, &Throttle::NONE)
            .unwrap();
        let slot = backend.admit(&Arc::new(packed)).unwrap();
        subjects.push(Subject {
            name: kind.file_name().unwrap().to_str().unwrap().to_owned(),
            slot: Some(slot),
        });
    }
    subjects
}

fn step(backend: &mut CpuBackend, cases: &mut [&mut Case<'_>], chunks: &[(usize, Vec<u32>)]) -> Vec<f32> {
    let runs: Vec<Run<'_>> = cases
        .iter()
        .zip(chunks)
        .map(|(case, (start, tokens))| Run {
            tokens,
            start: *start,
            blocks: &case.blocks,
            adapter: case.subject.slot,
            scale: 1.0,
            wanted: Wanted::All,
        })
        .collect();
    let mut outputs = Outputs::default();
    backend.forward(&Step { runs: &runs }, &mut outputs).unwrap();
    outputs.logits
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
    u32::try_from(best.unwrap()).unwrap()
}

/// Runs cases together: the prompts in one step, then greedy decoding with one row of each in every
/// step.
fn run(backend: &mut CpuBackend, mut cases: Vec<&mut Case<'_>>, greedy: usize) {
    let vocab = backend.limits().vocab;
    let prompts: Vec<(usize, Vec<u32>)> = cases.iter().map(|case| (0, case.tokens.clone())).collect();
    let mut logits = step(backend, &mut cases, &prompts);
    let mut rest = logits.as_slice();
    for case in &mut cases {
        let (mine, others) = rest.split_at(case.tokens.len() * vocab);
        case.logits = mine.to_vec();
        case.greedy = vec![argmax(&mine[mine.len() - vocab..])];
        rest = others;
    }
    for _ in 1..greedy {
        let next: Vec<(usize, Vec<u32>)> = cases
            .iter()
            .map(|case| {
                (
                    case.tokens.len() + case.greedy.len() - 1,
                    vec![*case.greedy.last().unwrap()],
                )
            })
            .collect();
        logits = step(backend, &mut cases, &next);
        for (case, row) in cases.iter_mut().zip(logits.chunks_exact(vocab)) {
            case.greedy.push(argmax(row));
        }
    }
}

fn cases<'a>(subjects: &'a [Subject], reference: &Checkpoint, greedy: usize) -> Vec<Case<'a>> {
    let mut block = 0;
    let mut cases = Vec::new();
    for subject in subjects {
        for prompt in 0.. {
            let Some(ids) = reference.i64s(&format!("prompt.{prompt}")) else {
                break;
            };
            let tokens: Vec<u32> = ids.iter().map(|&id| u32::try_from(id).unwrap()).collect();
            let count = (tokens.len() + greedy).div_ceil(BLOCK_TOKENS) as u32;
            let blocks = (block..block + count).map(BlockId).collect();
            block += count;
            cases.push(Case {
                subject,
                prompt,
                tokens,
                logits: Vec::new(),
                greedy: Vec::new(),
                blocks,
            });
        }
    }
    cases
}

fn judge(folder: &Path, how: &str, cases: &[Case<'_>], reference: &Checkpoint) {
    for case in cases {
        let at = format!(
            "{} {} prompt {} {how}",
            folder.display(),
            case.subject.name,
            case.prompt
        );
        let expected = reference
            .tensor(&format!("{}.{}.logits", case.subject.name, case.prompt))
            .unwrap()
            .to_f32();
        assert_eq!(case.logits.len(), expected.len(), "{at}");
        let largest = expected
            .iter()
            .fold(0f32, |largest, logit| largest.max(logit.abs()));
        let deviation = case
            .logits
            .iter()
            .zip(&expected)
            .fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(
            deviation <= TOLERANCE * largest,
            "{at}: deviates by {}",
            deviation / largest
        );
        let greedy = reference
            .i64s(&format!("{}.{}.greedy", case.subject.name, case.prompt))
            .unwrap();
        let ours: Vec<i64> = case.greedy.iter().map(|&token| i64::from(token)).collect();
        assert_eq!(ours, greedy, "{at}: greedy tokens");
    }
}

fn check(set: &str, at_least: usize) {
    let folders = folders(set);
    assert!(folders.len() >= at_least, "found only {folders:?}");
    for folder in folders {
        let model = Arc::new(CpuBase::open(&folder.join("model"), &exact()).unwrap());
        let options = BackendOptions {
            threads: 2,
            blocks: 256,
            context: model.config().default_context(),
            step_rows: 2048,
            kv_dtype: KvDtype::F32,
            throttle: Throttle::NONE,
        };
        let mut backend = CpuBackend::new(Arc::clone(&model), options);
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        let subjects = subjects(&folder, &mut backend, &model);
        let greedy = reference.i64s("base.0.greedy").unwrap().len();

        let mut alone = cases(&subjects, &reference, greedy);
        for case in &mut alone {
            run(&mut backend, vec![case], greedy);
        }
        judge(&folder, "alone", &alone, &reference);

        let mut mixed = cases(&subjects, &reference, greedy);
        run(&mut backend, mixed.iter_mut().collect(), greedy);
        judge(&folder, "mixed", &mixed, &reference);
        for (alone, mixed) in alone.iter().zip(&mixed) {
            let same = alone
                .logits
                .iter()
                .zip(&mixed.logits)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(
                same,
                "{} {}: mixed differs from alone",
                folder.display(),
                alone.subject.name
            );
        }
    }
}

#[test]
fn every_architecture_and_kind_answers_as_in_peft_alone_and_mixed() {
    check("peft", 13);
}

#[test]
fn what_the_twelve_kinds_leave_out_answers_as_in_peft() {
    check("peft_extra", 9);
}

#[test]
fn variants_of_lora_answer_as_in_peft() {
    check("relatives", 3);
}

/// A base with an adapter merged into it answers as PEFT does with the adapter.
#[test]
fn merged_models_answer_as_their_adapters_do() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["peft", "peft_extra", "relatives"].into_iter().flat_map(folders);
    // A merged weight that is rounded to 16 bits differs from the reference's.
    let exact = sets.filter(|folder| !folder.ends_with("f16") && !folder.ends_with("bf16"));
    let mut merged = 0;
    for folder in exact {
        let (base, name) = (
            folder.join("model"),
            folder.file_name().unwrap().to_str().unwrap(),
        );
        let config = multigraft_model::ModelFiles::open(&base)
            .unwrap()
            .config()
            .unwrap();
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        for kind in std::fs::read_dir(folder.join("adapters")).unwrap() {
            let kind = kind.unwrap().path();
            let out = dir.path().join(format!("{name}.{merged}"));
            merged += usize::from(merges(&folder, &kind, &base, &config, &reference, &out));
        }
    }
    assert!(merged > 200, "only {merged} were merged");
}

/// The same for GGUF files, whose rows of queries and keys may have another order.
#[test]
fn models_merged_into_gguf_answer_as_their_adapters_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut merged = 0;
    for folder in folders("peft") {
        let name = folder.file_name().unwrap().to_str().unwrap();
        let base = multigraft_testing::fixtures().join(format!("gguf/{name}.gguf"));
        // A GGUF file cannot represent everything that the configs of these models say.
        if ["gemma2", "gemma3", "mistral", "smollm3"].contains(&name) || !base.is_file() {
            continue;
        }
        let files = multigraft_model::ModelFiles::open(&base).unwrap();
        let config = files.config().unwrap();
        let reference = Checkpoint::open_file(&folder.join("reference.safetensors")).unwrap();
        for kind in std::fs::read_dir(folder.join("adapters")).unwrap() {
            let kind = kind.unwrap().path();
            let out = dir.path().join(format!("{name}.{merged}.gguf"));
            merged += usize::from(merges(&folder, &kind, &base, &config, &reference, &out));
        }
    }
    assert!(merged > 80, "only {merged} were merged");
}

/// Whether an adapter can be merged into its base. If so, the merged model must answer as the
/// adapter does.
fn merges(
    folder: &Path,
    kind: &Path,
    base: &Path,
    config: &multigraft_model::Config,
    reference: &Checkpoint,
    out: &Path,
) -> bool {
    let adapter = multigraft_peft::read(kind, config).unwrap();
    match multigraft_peft::export(&adapter, base, Form::Merged, out) {
        Ok(()) => {}
        // LoRA's biases cannot be merged into a base without biases.
        Err(error) if error.to_string().contains("adds a bias") => return false,
        Err(error) => panic!("{}: {error}", kind.display()),
    }
    let subjects = [Subject {
        name: kind.file_name().unwrap().to_str().unwrap().to_owned(),
        slot: None,
    }];
    let model = Arc::new(CpuBase::open(out, &exact()).unwrap());
    let options = BackendOptions {
        threads: 2,
        blocks: 64,
        context: model.config().default_context(),
        step_rows: 2048,
        kv_dtype: KvDtype::F32,
        throttle: Throttle::NONE,
    };
    let mut backend = CpuBackend::new(model, options);
    let greedy = reference.i64s("base.0.greedy").unwrap().len();
    let mut cases = cases(&subjects, reference, greedy);
    run(&mut backend, cases.iter_mut().collect(), greedy);
    judge(folder, "merged", &cases, reference);
    true
}

/// The reference was computed in float32.
fn exact() -> LoadOptions<'static> {
    LoadOptions {
        precision: Precision::Exact,
        ..LoadOptions::default()
    }
}
