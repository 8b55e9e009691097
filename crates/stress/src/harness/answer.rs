//! Answers in any dialect, whole or streamed.

use serde_json::Value;

use multigraft_api::sse::Events;
use multigraft_loadgen::client::Body;
use multigraft_loadgen::record::Failure;

/// A complete answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The text. Of tool calls, their names and arguments.
    pub text: String,
    /// The hash of the adapter that made it, if the dialect reports it.
    pub fingerprint: Option<String>,
    /// Whether the last event has arrived.
    is_complete: bool,
}

impl Answer {
    /// Reads an answer to its end. A stream without its last event is a failure.
    pub(crate) async fn read(body: &mut Body, is_stream: bool) -> Result<Self, Failure> {
        let mut answer = Self::default();
        if is_stream {
            let mut events = Events::default();
            while let Some((part, _)) = body.next().await? {
                events.push(&part);
                while let Some(event) = events.next_event() {
                    answer.add(event.data)?;
                }
            }
        } else {
            answer.add(&body.collect().await?)?;
            answer.is_complete = true;
        }
        match answer.is_complete {
            true => Ok(answer),
            false => Err(Failure::Broken("it ended without its last event".to_owned())),
        }
    }

    /// Adds an event of a stream, or a whole answer.
    fn add(&mut self, data: &[u8]) -> Result<(), Failure> {
        if data == b"[DONE]" {
            self.is_complete = true;
            return Ok(());
        }
        let event: Value = serde_json::from_slice(data)
            .map_err(|error| Failure::Broken(format!("it is not JSON: {error}")))?;
        if event.get("error").is_some() {
            return Err(Failure::in_stream(&event));
        }
        if let Some(fingerprint) = event["system_fingerprint"].as_str() {
            self.fingerprint = Some(fingerprint.to_owned());
        }
        // TGI's last event repeats the whole text.
        if let Some(text) = event["generated_text"].as_str() {
            text.clone_into(&mut self.text);
            self.is_complete = true;
        }
        for choice in event["choices"].as_array().into_iter().flatten() {
            self.push(&choice["text"]);
            for message in [&choice["message"], &choice["delta"]] {
                self.push(&message["content"]);
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    self.push(&call["function"]["name"]);
                    self.push(&call["function"]["arguments"]);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &Value) {
        self.text += text.as_str().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[&str]) -> Result<Answer, Failure> {
        let mut answer = Answer::default();
        events.iter().try_for_each(|event| answer.add(event.as_bytes()))?;
        Ok(answer)
    }

    #[test]
    fn a_stream_adds_up_to_the_whole_answer() {
        let whole = read(&[r#"{"system_fingerprint":"f","choices":[{"message":{"content":"a b"}}]}"#]);
        let streamed = read(&[
            r#"{"system_fingerprint":"f","choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"system_fingerprint":"f","choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"system_fingerprint":"f","choices":[{"delta":{"content":" b"}}]}"#,
            "[DONE]",
        ]);
        let (whole, streamed) = (whole.expect("good"), streamed.expect("good"));
        assert_eq!(
            (whole.text, whole.fingerprint),
            (streamed.text, streamed.fingerprint)
        );
        assert!(streamed.is_complete);
        let call = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(read(&[call]).expect("good").text, "f{}");
        let tgi = [
            r#"{"token":{"text":"a"}}"#,
            r#"{"token":{"text":"b"},"generated_text":"ab"}"#,
        ];
        let tgi = read(&tgi).expect("good");
        assert_eq!((tgi.text.as_str(), tgi.is_complete), ("ab", true));
    }

    #[test]
    fn an_error_event_or_invalid_json_is_a_failure() {
        assert!(matches!(
            read(&[r#"{"error":{"message":"x"}}"#]),
            Err(Failure::InStream(_))
        ));
        assert!(matches!(read(&["{"]), Err(Failure::Broken(_))));
        assert!(!read(&[r#"{"choices":[]}"#]).expect("good").is_complete);
    }
}
