//! Detection of an engine step that takes longer than any model should need.

use multigraft_engine::{CurrentStep, Engine};

use crate::contract::limits::Limits;

/// The current step of the engine, if it exceeds [`Limits::step_time`].
pub(crate) fn stuck(engine: &Engine, limits: &Limits) -> Option<CurrentStep> {
    let step = engine.current_step()?;
    (step.began.elapsed() > limits.step_time).then_some(step)
}
