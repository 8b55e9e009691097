//! `multigraft verify`: compares adapters with the reference numbers of PEFT.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use multigraft_adapters::Source;
use multigraft_model::{
    AdapterDtype, Backend, BackendOptions, Base, KvDtype, Precision, ReadyAdapter, Slot, Throttle,
    drive::{self, Case, Outcome},
};
use multigraft_peft::read;
use serde::Serialize;

use crate::{
    cli::VerifyArguments,
    config::default_threads,
    load::open_model,
    verify::{BASE, Reference, Verdict, judge},
};

/// The most rows of a step. Prompts that have more rows together are split, so that steps mix
/// prefill and decode.
const STEP_ROWS: usize = 256;

/// The result of one adapter.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    result: Outcomes,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "status")]
enum Outcomes {
    /// The adapter agrees with the reference.
    Agrees(Verdict),
    /// The adapter deviates from the reference.
    Deviates {
        #[serde(flatten)]
        verdict: Verdict,
        fault: &'static str,
    },
    /// There are reference numbers, but the adapter could not be applied.
    Refused { reason: String },
    /// The adapter has no reference numbers, or the numbers have no adapter.
    NotCompared { reason: String },
}

pub(crate) fn run(arguments: &VerifyArguments) -> Result<ExitCode> {
    ensure!(
        arguments.tolerance >= 0.0,
        "--tolerance is {}, but must be 0 or more",
        arguments.tolerance
    );
    let threads = arguments.threads.unwrap_or_else(default_threads);
    ensure!(threads > 0, "--threads is 0, but must be 1 or more");
    let reference = Reference::read(&arguments.reference)?;
    let model = open_model(arguments.device, &arguments.base, threads, Precision::Exact)?;
    let rows = compare(
        &model,
        &reference,
        &arguments.adapters,
        threads,
        arguments.tolerance,
    )?;
    ensure!(
        rows.iter()
            .any(|row| !matches!(row.result, Outcomes::NotCompared { .. })),
        "nothing could be compared: {} has numbers for {}, none of which is `base` or a folder in {}",
        arguments.reference.display(),
        reference.expected.keys().cloned().collect::<Vec<_>>().join(", "),
        arguments.adapters.display(),
    );
    if arguments.json {
        let report = serde_json::json!({"tolerance": arguments.tolerance, "results": rows});
        writeln!(io::stdout(), "{report:#}")?;
    } else {
        io::stdout().write_all(table(&rows, arguments.tolerance).as_bytes())?;
    }
    let failed = rows
        .iter()
        .any(|row| matches!(row.result, Outcomes::Deviates { .. } | Outcomes::Refused { .. }));
    Ok(ExitCode::from(u8::from(failed)))
}

/// The adapters to compare: ready, or the reason why not.
type Adapters = BTreeMap<String, Result<Arc<ReadyAdapter>, String>>;

fn adapters(model: &dyn Base, folder: &Path) -> Result<(Adapters, Vec<String>)> {
    let found = Source::in_folder(folder)?;
    let open = |source: &Source| {
        let folder = source.at.folder().unwrap_or(Path::new(""));
        let file = read(folder, model.config()).map_err(|error| error.to_string())?;
        let ready = model
            .ready(&file.weights, AdapterDtype::F32, &Throttle::NONE)
            .map_err(|error| error.to_string())?;
        Ok(Arc::new(ready))
    };
    let adapters = found
        .sources
        .iter()
        .map(|source| (source.name.clone(), open(source)))
        .collect();
    Ok((adapters, found.skipped))
}

fn compare(
    model: &Arc<dyn Base>,
    reference: &Reference,
    folder: &Path,
    threads: usize,
    tolerance: f32,
) -> Result<Vec<Row>> {
    let (adapters, skipped) = adapters(&**model, folder)?;
    let mut rows = Vec::new();
    let mut compared: Vec<(&str, Option<Arc<ReadyAdapter>>)> = Vec::new();
    for name in reference.expected.keys() {
        let row = |result| Row {
            name: name.clone(),
            result,
        };
        if name == BASE {
            compared.push((name, None));
            continue;
        }
        match adapters.get(name) {
            Some(Ok(ready)) => compared.push((name, Some(Arc::clone(ready)))),
            Some(Err(reason)) => rows.push(row(Outcomes::Refused {
                reason: reason.clone(),
            })),
            None => rows.push(row(Outcomes::NotCompared {
                reason: "the reference has numbers for it, but there is no such folder".to_owned(),
            })),
        }
    }
    for (name, opened) in &adapters {
        if !reference.expected.contains_key(name) {
            let without = "the reference has no numbers for it";
            let reason = match opened {
                Ok(_) => without.to_owned(),
                Err(reason) => format!("{without}; nor can it be applied: {reason}"),
            };
            rows.push(Row {
                name: name.clone(),
                result: Outcomes::NotCompared { reason },
            });
        }
    }
    rows.extend(skipped.into_iter().map(|reason| Row {
        name: "-".to_owned(),
        result: Outcomes::NotCompared { reason },
    }));
    // The base first, then by name.
    compared.sort_by_key(|(name, _)| (*name != BASE, *name));
    let verdicts = verdicts(model, reference, &compared, threads)?;
    let judged = compared.iter().zip(verdicts).map(|((name, _), verdict)| Row {
        name: (*name).to_owned(),
        result: match verdict.fault(tolerance) {
            None => Outcomes::Agrees(verdict),
            Some(fault) => Outcomes::Deviates { verdict, fault },
        },
    });
    Ok(judged.chain(rows).collect())
}

/// Runs every prompt of every adapter alone, and then all of them together.
fn verdicts(
    model: &Arc<dyn Base>,
    reference: &Reference,
    compared: &[(&str, Option<Arc<ReadyAdapter>>)],
    threads: usize,
) -> Result<Vec<Verdict>> {
    let vocab = model.config().vocab;
    let block_tokens = model.kv_block(KvDtype::F32).tokens;
    let mut blocks = 1;
    for (name, _) in compared {
        for (prompt, expected) in reference.prompts.iter().zip(&reference.expected[*name]) {
            ensure!(
                expected.vocab == vocab,
                "the reference has a vocabulary of {} tokens, the base of {vocab}",
                expected.vocab
            );
            blocks += (prompt.len() + expected.greedy.len()).div_ceil(block_tokens);
        }
    }
    let options = BackendOptions {
        threads,
        blocks,
        context: model.config().context,
        step_rows: STEP_ROWS,
        kv_dtype: KvDtype::F32,
        throttle: Throttle::NONE,
    };
    let mut backend = Arc::clone(model).backend(options)?;
    let slots: Vec<Option<Slot>> = compared
        .iter()
        .map(|(_, ready)| ready.as_ref().map(|ready| backend.admit(ready)).transpose())
        .collect::<Result<_, _>>()?;
    let cases: Vec<Vec<Case<'_>>> = compared
        .iter()
        .zip(&slots)
        .map(|((name, ready), &adapter)| {
            let expected = &reference.expected[*name];
            let with = reference.prompts.iter().zip(expected);
            with.map(|(prompt, expected)| Case {
                prompt,
                generate: expected.greedy.len(),
                adapter,
                // An adapter that is not invoked has no effect, as in PEFT.
                sets_in: ready
                    .as_ref()
                    .map_or(0, |ready| ready.sets_in(prompt).unwrap_or(usize::MAX)),
            })
            .collect()
        })
        .collect();

    let mut alone: Vec<Vec<Outcome>> = Vec::new();
    for cases in &cases {
        let each = cases.iter().map(|&case| run_alone(&mut *backend, case));
        alone.push(each.collect::<Result<_>>()?);
    }
    let together: Vec<Case<'_>> = cases.concat();
    let mixed = drive::run(&mut *backend, &together).context("all prompts mixed")?;
    let per_adapter = mixed.chunks(reference.prompts.len());
    Ok(compared
        .iter()
        .zip(alone.iter().zip(per_adapter))
        .map(|((name, _), (alone, mixed))| judge(&reference.expected[*name], alone, mixed))
        .collect())
}

fn run_alone(backend: &mut dyn Backend, case: Case<'_>) -> Result<Outcome> {
    match drive::run(backend, &[case])?.pop() {
        Some(outcome) => Ok(outcome),
        None => bail!("the backend returned no outcome"),
    }
}

fn table(rows: &[Row], tolerance: f32) -> String {
    let width = rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or(0)
        .max("adapter".len());
    let yes_no = |yes: bool| if yes { "yes" } else { "NO" };
    let mut text = format!(
        "{:width$}  deviation alone  deviation mixed  greedy agrees  mixed = alone\n",
        "adapter"
    );
    let mut notes = String::new();
    let (mut agreeing, mut failing) = (0, 0);
    for Row { name, result } in rows {
        match result {
            Outcomes::Agrees(verdict) | Outcomes::Deviates { verdict, .. } => {
                text += &format!(
                    "{name:width$}  {:>15.2e}  {:>15.2e}  {:>13}  {:>13}\n",
                    verdict.alone,
                    verdict.mixed,
                    yes_no(verdict.greedy),
                    yes_no(verdict.identical),
                );
            }
            Outcomes::Refused { reason } => notes += &format!("{name}: cannot be applied: {reason}\n"),
            Outcomes::NotCompared { reason } => notes += &format!("{name}: not compared: {reason}\n"),
        }
        match result {
            Outcomes::Agrees(_) => agreeing += 1,
            Outcomes::Deviates { fault, .. } => {
                failing += 1;
                notes += &format!("{name}: {fault}\n");
            }
            Outcomes::Refused { .. } => failing += 1,
            Outcomes::NotCompared { .. } => {}
        }
    }
    let verdict = match failing {
        0 => format!("all {agreeing} agree with the reference within {tolerance:e}"),
        _ => format!(
            "{failing} of {} do not agree with the reference within {tolerance:e}",
            agreeing + failing
        ),
    };
    text + &notes + &verdict + "\n"
}
