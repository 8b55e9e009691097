//! A step of the engine that takes longer than any model should need.

use multigraft_engine::{CurrentStep, Engine};

use crate::contract::limits::Limits;

/// The step that takes too long, if the one under way does.
pub(crate) fn stuck(engine: &Engine, limits: &Limits) -> Option<CurrentStep> {
    let under_way = engine.current_step()?;
    (under_way.began.elapsed() > limits.step_time).then_some(under_way)
}
