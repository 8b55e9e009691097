//! The gate against regressions: two builds in turn, figure by figure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use super::figures::{Figure, bench, json_of, median, of_model};
use super::markdown::{Table, figure};
use super::{Arguments, Subject, threads};
use crate::server;
use crate::shell::{execute_aside, root};

/// How much slower a figure may be: machines are not more alike from run to run.
const TOLERANCE: f64 = 0.05;
/// Rounds at least: fewer say nothing about noise.
const ROUNDS: usize = 5;

/// Runs the short set on the current tree and on `revision`; status 1 if a figure has become
/// slower.
pub(super) fn run(revision: &str, subjects: &[Subject], arguments: &Arguments) -> Result<ExitCode> {
    let then = Worktree::of(revision)?;
    let before = then.build()?;
    let now = server::build("release")?;
    let mut slower = false;
    for subject in subjects {
        // By figure: each round's speed before and now.
        let mut rounds: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let mut order = Vec::new();
        for round in 0..arguments.rounds.max(ROUNDS) {
            // Who goes first takes turns: the second may find a warmer or a slower machine.
            let (first, second) = if round % 2 == 0 {
                (&before, &now)
            } else {
                (&now, &before)
            };
            let one = measure(first, subject, arguments)?;
            let other = measure(second, subject, arguments)?;
            let (old, new) = if round % 2 == 0 {
                (one, other)
            } else {
                (other, one)
            };
            for figure in &old {
                let Some(same) = new.iter().find(|new| new.what == figure.what) else {
                    continue;
                };
                let pairs = rounds.entry(figure.what.clone()).or_default();
                pairs.push((figure.tokens_per_second, same.tokens_per_second));
                if round == 0 {
                    order.push(figure.what.clone());
                }
            }
        }
        ensure!(!order.is_empty(), "the two builds have no figure in common");
        println!(
            "\n{}: the current tree against {revision}, tokens/s\n",
            subject.name
        );
        let mut table = Table::new(["what", revision, "now", "ratio", "noise", "verdict"]);
        for what in order {
            let change = Change::of(&rounds[&what]);
            slower |= change.is_slower();
            table.row([
                what.clone(),
                figure(change.before),
                figure(change.now),
                format!("{:.3}", change.ratio),
                format!("±{:.3}", change.noise),
                change.verdict().to_owned(),
            ]);
        }
        println!("{table}");
    }
    Ok(ExitCode::from(u8::from(slower)))
}

fn measure(program: &Path, subject: &Subject, arguments: &Arguments) -> Result<Vec<Figure>> {
    let mut command = bench(program, "model");
    command.arg("--base").arg(&subject.model);
    if let Some(adapters) = &subject.adapters {
        command.arg("--adapters").arg(adapters);
    }
    command.args(["--threads", &threads(arguments).to_string()]);
    command.args([
        "--prefill-lengths",
        "512",
        "--decode-batches",
        "1,16",
        "--decode-contexts",
        "64",
    ]);
    command.args(["--repetitions", "3", "--steps", "32"]);
    let report = json_of(&mut command).context("does that revision have `multigraft bench model`?")?;
    of_model(&report)
}

/// What became of a figure.
#[derive(Debug)]
struct Change {
    before: f64,
    now: f64,
    /// The median of the rounds' ratios, now over before.
    ratio: f64,
    /// How far that median may be off: twice its standard error, estimated from the median
    /// deviation.
    noise: f64,
}

impl Change {
    fn of(rounds: &[(f64, f64)]) -> Self {
        let ratios: Vec<f64> = rounds.iter().map(|(before, now)| now / before).collect();
        let ratio = median(ratios.clone());
        let deviation = median(ratios.iter().map(|each| (each - ratio).abs()).collect());
        // 1.4826 makes it a standard deviation, 1.2533 that of a median, where errors are normal.
        let noise = 2.0 * 1.2533 * 1.4826 * deviation / (rounds.len() as f64).sqrt();
        Self {
            before: median(rounds.iter().map(|(before, _)| *before).collect()),
            now: median(rounds.iter().map(|(_, now)| *now).collect()),
            ratio,
            noise,
        }
    }

    fn is_slower(&self) -> bool {
        self.ratio + self.noise < 1.0 - TOLERANCE
    }

    fn verdict(&self) -> &'static str {
        if self.is_slower() {
            "SLOWER"
        } else if self.ratio - self.noise > 1.0 + TOLERANCE {
            "faster"
        } else {
            "the same"
        }
    }
}

/// A checkout of another revision, removed when this is dropped.
struct Worktree {
    /// Holds the checkout.
    folder: tempfile::TempDir,
    /// The commit.
    commit: String,
}

impl Worktree {
    fn of(revision: &str) -> Result<Self> {
        let named = Command::new("git")
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
            .arg(format!("{revision}^{{commit}}"))
            .current_dir(root())
            .output()
            .context("cannot run git")?;
        ensure!(named.status.success(), "there is no revision `{revision}`");
        let commit = String::from_utf8(named.stdout)?.trim().to_owned();
        let worktree = Self {
            folder: tempfile::Builder::new().prefix("multigraft-compare-").tempdir()?,
            commit,
        };
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--quiet", "--detach"])
            .arg(worktree.path())
            .arg(&worktree.commit);
        execute_aside(add.current_dir(root()))?;
        Ok(worktree)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Builds the checkout. The build stays in the target folder, which makes the next comparison
    /// faster.
    fn build(&self) -> Result<PathBuf> {
        let target = target_folder().join("compare");
        let mut build = Command::new("cargo");
        build.args([
            "build",
            "--release",
            "--package",
            "multigraft",
            "--bin",
            "multigraft",
        ]);
        execute_aside(build.arg("--target-dir").arg(&target).current_dir(self.path()))?;
        // A copy, because the next comparison may build another revision there.
        let program = self.folder.path().join("multigraft");
        std::fs::copy(target.join("release").join("multigraft"), &program)?;
        Ok(program)
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        // If it fails, `git worktree prune` removes the rest later.
        _ = Command::new("git")
            .args(["worktree", "remove", "--force"])
            .arg(self.path())
            .current_dir(root())
            .output();
    }
}

/// Cargo's target folder.
pub(super) fn target_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    root().join(target.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(ratios: &[f64]) -> Change {
        Change::of(
            &ratios
                .iter()
                .map(|ratio| (100.0, 100.0 * ratio))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_loss_beyond_tolerance_and_noise_is_slower() {
        assert!(change(&[0.90, 0.91, 0.90, 0.89, 0.90]).is_slower());
        // Within the tolerance.
        assert!(!change(&[0.96, 0.97, 0.96, 0.96, 0.95]).is_slower());
        // Beyond it, but no more than the rounds differ among themselves.
        assert!(!change(&[0.70, 1.10, 0.93, 0.80, 1.05]).is_slower());
        assert_eq!(change(&[1.0, 1.0, 1.0]).verdict(), "the same");
        assert_eq!(change(&[1.2, 1.21, 1.2]).verdict(), "faster");
        assert_eq!(change(&[0.5, 0.5, 0.5]).verdict(), "SLOWER");
    }
}
