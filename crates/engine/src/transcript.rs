//! The text of one output, as far as it may be sent.

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

    /// Adds a token, and returns the text that may be sent. A stop string that an `early` token
    /// completes does not count.
    pub(crate) fn push(&mut self, id: u32, early: bool) -> Result<String, Stopped> {
        let piece = self.decoder.push(id);
        self.push_text(&piece, early)
    }

    /// Returns the text that is still held back at the end. It includes the decoder's rest, in
    /// which a stop string may be complete.
    pub(crate) fn finish(&mut self, early: bool) -> Result<String, Stopped> {
        let piece = self.decoder.finish();
        let text = self.push_text(&piece, early)?;
        Ok(text + &self.stops.finish())
    }

    fn push_text(&mut self, piece: &str, early: bool) -> Result<String, Stopped> {
        match early {
            true => Ok(self.stops.pass(piece)),
            false => self.stops.push(piece),
        }
    }
}
