//! `multigraft export`: writes an adapter in another format.

use std::process::ExitCode;

use anyhow::Result;
use multigraft_model::ModelFiles;
use multigraft_peft::{BaseShape, Form, export, read_for};

use crate::cli::{ExportArguments, ExportForm};
use crate::locate::SearchPath;

pub(crate) fn run(arguments: &ExportArguments) -> Result<ExitCode> {
    let base = SearchPath::of_this_user().find(&arguments.base)?;
    let config = ModelFiles::open(&base.path)?.config()?;
    let adapter = read_for(&arguments.adapter, &BaseShape::new(&config).named(&base.title))?;
    for warning in &adapter.info.warnings {
        tracing::warn!("{warning}");
    }
    let form = match arguments.to {
        ExportForm::Peft => Form::Peft,
        ExportForm::Gguf => Form::Gguf,
        ExportForm::Merged => Form::Merged,
    };
    export(&adapter, &base.path, form, &arguments.out)?;
    if let (Some(template), true) = (&adapter.template, arguments.out.is_file()) {
        tracing::warn!(
            "the adapter's chat template (in {}) is not part of the written file: serve it together with that file",
            template.file
        );
    }
    tracing::info!("wrote {}", arguments.out.display());
    Ok(ExitCode::SUCCESS)
}
