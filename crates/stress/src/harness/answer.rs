//! Reading answers of every dialect, whole or streamed, to their end.

use serde_json::Value;

use multigraft_loadgen::events::DataLines;
use multigraft_loadgen::client::Body;
use multigraft_loadgen::record::Failure;

/// What was answered, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The text; of calls, their names and arguments.
    pub text: String,
    /// What made it, as far as the dialect says so.
    pub fingerprint: Option<String>,
    /// Whether the end of it came.
    complete: bool,
}

impl Answer {
    /// Reads to the end; an answer that lacks its end is a failure.
    pub(crate) async fn read(parts: &mut Parts, stream: bool) -> Result<Self, Failure> {
        let (mut lines, mut whole, mut answer) = (DataLines::default(), Vec::new(), Self::default());
        while let Some((part, _)) = parts.next().await? {
            if !stream {
                whole.extend_from_slice(&part);
                continue;
            }
            lines.push(&part);
            while let Some(data) = lines.next() {
                answer.add(data)?;
            }
        }
        if !stream {
            answer.add(&whole)?;
            answer.complete = true;
        }
        match answer.complete {
            true => Ok(answer),
            false => Err(Failure::Broken("it ended without its last event".to_owned())),
        }
    }

    /// Adds an event, or a whole answer.
    fn add(&mut self, data: &[u8]) -> Result<(), Failure> {
        if data == b"[DONE]" {
            self.complete = true;
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
        // TGI's last event says the whole again.
        if let Some(text) = event["generated_text"].as_str() {
            text.clone_into(&mut self.text);
            self.complete = true;
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
    fn streams_add_up_to_what_is_answered_whole() {
        let whole = read(&[r#"{"system_fingerprint":"f","choices":[{"message":{"content":"a b"}}]}"#]);
        let parts = read(&[
            r#"{"system_fingerprint":"f","choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"system_fingerprint":"f","choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"system_fingerprint":"f","choices":[{"delta":{"content":" b"}}]}"#,
            "[DONE]",
        ]);
        let (whole, parts) = (whole.expect("good"), parts.expect("good"));
        assert_eq!((whole.text, whole.fingerprint), (parts.text, parts.fingerprint));
        assert!(parts.complete);
        let call = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#;
        assert_eq!(read(&[call]).expect("good").text, "f{}");
        let tgi = [
            r#"{"token":{"text":"a"}}"#,
            r#"{"token":{"text":"b"},"generated_text":"ab"}"#,
        ];
        let tgi = read(&tgi).expect("good");
        assert_eq!((tgi.text.as_str(), tgi.complete), ("ab", true));
    }

    #[test]
    fn an_error_or_nonsense_in_the_middle_is_a_failure() {
        assert!(matches!(
            read(&[r#"{"error":{"message":"x"}}"#]),
            Err(Failure::InStream(_))
        ));
        assert!(matches!(read(&["{"]), Err(Failure::Broken(_))));
        assert!(!read(&[r#"{"choices":[]}"#]).expect("good").complete);
    }
}
