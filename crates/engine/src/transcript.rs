//! The text of one output, as far as it may be shown.

use crate::request::Stop;
use crate::stop::{StopStrings, Stopped};
use crate::vocabulary::Decoder;

/// Decodes an output's tokens and cuts the text at the first stop string.
pub(crate) struct Transcript {
    decoder: Box<dyn Decoder>,
    stops: StopStrings,
}

impl Transcript {
    pub(crate) fn new(decoder: Box<dyn Decoder>, stop: &Stop) -> Self {
        Self {
            decoder,
            stops: StopStrings::new(stop.strings.clone(), stop.include_stop_string),
        }
    }

    /// The text that may be shown after this token.
    pub(crate) fn push(&mut self, id: u32) -> Result<String, Stopped> {
        let piece = self.decoder.push(id);
        self.stops.push(&piece)
    }

    /// The text that was held back, at the end. The decoder may still have some, and a stop string may be in it.
    pub(crate) fn finish(&mut self) -> Result<String, Stopped> {
        let piece = self.decoder.finish();
        let text = self.stops.push(&piece)?;
        Ok(text + &self.stops.finish())
    }
}
