//! `POST /generate`, `/generate_stream` and `/`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use multigraft_engine::{Finish, Request};

use super::{
    parameters::Generate,
    streaming::GenerateStream,
    types::{Answered, Details, MadeBy, PrefillToken, WireToken, finish_reason},
};
use crate::{
    Dialect,
    admission::Served,
    answers::{Answer, Answers},
    error::ApiError,
    fields::Fields,
    session::Session,
    state::AppState,
    stream,
    tokens::encode,
};

/// TGI's default for `max_new_tokens`.
const DEFAULT_NEW_TOKENS: usize = 100;

/// A request under way.
struct Accepted {
    generate: Generate,
    served: Served,
    answers: Answers,
    max_tokens: usize,
    /// Time spent on checking and tokenising.
    validation: Duration,
    began: Instant,
}

/// `POST /generate`: the answer in one piece.
pub(crate) async fn generate(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, &state.limits, |asked| state.defaults(asked))?;
    if generate.stream == Some(true) {
        let message = "`stream` is true, but /generate answers in one piece; use /generate_stream or /";
        return Err(ApiError::invalid("stream", message));
    }
    let accepted = accept(&state, generate, false).await?;
    whole(&state, accepted, |answered| Json(answered).into_response()).await
}

/// `POST /generate_stream`: the answer token by token.
pub(crate) async fn generate_stream(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, &state.limits, |asked| state.defaults(asked))?;
    if generate.stream == Some(false) {
        let message = "`stream` is false, but /generate_stream streams; use /generate or /";
        return Err(ApiError::invalid("stream", message));
    }
    let accepted = accept(&state, generate, true).await?;
    Ok(streamed(&state, accepted))
}

/// `POST /`: either of them, by `stream`; in one piece it is a list of one answer.
pub(crate) async fn compatible(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, &state.limits, |asked| state.defaults(asked))?;
    if generate.stream == Some(true) {
        let accepted = accept(&state, generate, true).await?;
        return Ok(streamed(&state, accepted));
    }
    let accepted = accept(&state, generate, false).await?;
    whole(&state, accepted, |answered| Json([answered]).into_response()).await
}

async fn accept(state: &Session, generate: Generate, stream: bool) -> Result<Accepted, ApiError> {
    let began = Instant::now();
    if stream && generate.decoder_input_details {
        let field = "parameters.decoder_input_details";
        let message = format!("`{field}` is only given with answers in one piece, not in streams");
        return Err(ApiError::invalid(field, message));
    }
    generate.asked.check(state)?;
    let inputs = &generate.inputs;
    let mut prompt = encode(&state.tokenizer, "inputs", inputs, generate.add_special_tokens).await?;
    if let Some(keep) = generate.truncate {
        prompt.drain(..prompt.len().saturating_sub(keep));
    }
    let room = state.engine.limits().room_after(prompt.len());
    // Without room for any token the engine's refusal says why.
    let max_tokens = generate
        .max_new_tokens
        .unwrap_or_else(|| DEFAULT_NEW_TOKENS.min(room).max(1));
    let grammar = state.constraints.compile(generate.constrained.clone()).await?;
    let mut served = state.model(&generate.asked).await?;
    // Streams carry the log-probability of every token, answers in one piece only in their details.
    let logprobs = stream || generate.details;
    let request = Request {
        prompt,
        adapter: served.adapter.clone(),
        sampling: generate.sampling.clone(),
        stop: generate.stop.clone(),
        grammar,
        max_tokens,
        logprobs: logprobs.then_some(generate.top_n_tokens.unwrap_or(0)),
        prompt_logprobs: generate.decoder_input_details.then_some(0),
        embedding: None,
        tenant: None,
        payer: None,
        weight: 1.0,
    };
    let answers = state.submit(vec![request], &mut served, Dialect::Tgi)?;
    Ok(Accepted {
        generate,
        served,
        answers,
        max_tokens,
        validation: began.elapsed(),
        began,
    })
}

fn streamed(state: &AppState, accepted: Accepted) -> Response {
    let generate = accepted.generate;
    let characters = generate.inputs.chars().count();
    let wording = GenerateStream {
        tokenizer: Arc::clone(&state.tokenizer),
        made_by: MadeBy::new(&accepted.served),
        details: generate.details,
        alternatives: generate.top_n_tokens.is_some_and(|count| count > 0),
        draws: generate.sampling.temperature > 0.0,
        stop_strings: !generate.stop.strings.is_empty(),
        max_tokens: accepted.max_tokens,
        text: if generate.return_full_text {
            generate.inputs
        } else {
            String::new()
        },
        count: 0,
        held: None,
    };
    let mut response = stream::respond(accepted.answers, wording);
    let headers = response.headers_mut();
    put(headers, "x-compute-type", "cpu".to_owned());
    put(headers, "x-compute-characters", characters.to_string());
    accepted.served.label(headers);
    response
}

async fn whole(
    state: &AppState,
    accepted: Accepted,
    respond: impl FnOnce(Answered) -> Response,
) -> Result<Response, ApiError> {
    let Accepted {
        generate,
        served,
        answers,
        validation,
        began,
        ..
    } = accepted;
    let mut answers = answers.collect().await?;
    let Some(answer) = answers.pop() else {
        return Err(ApiError::Failed("the engine gave no answer".to_owned()));
    };
    let finish = answer.finish.clone();
    let characters = generate.inputs.chars().count();
    let details = generate
        .details
        .then(|| details(state, &served, &generate, &answer));
    let mut generated_text = answer.text;
    if generate.return_full_text {
        generated_text.insert_str(0, &generate.inputs);
    }
    let mut response = respond(Answered {
        generated_text,
        details,
    });
    let headers = response.headers_mut();
    report(headers, &finish, characters, validation, began.elapsed());
    served.label(headers);
    Ok(response)
}

fn details(state: &AppState, served: &Served, generate: &Generate, answer: &Answer) -> Details {
    let tokenizer = &state.tokenizer;
    let tokens = answer.tokens.iter();
    Details {
        finish_reason: finish_reason(&answer.finish),
        prompt_tokens: answer.finish.prompt_tokens,
        generated_tokens: answer.finish.completion_tokens,
        seed: (generate.sampling.temperature > 0.0).then_some(answer.finish.seed),
        prefill: answer.prompt.iter().cloned().map(PrefillToken::new).collect(),
        tokens: tokens
            .clone()
            .map(|token| WireToken::whole(tokenizer, token))
            .collect(),
        top_tokens: generate
            .top_n_tokens
            .filter(|&count| count > 0)
            .map(|_| tokens.map(|token| WireToken::top(tokenizer, token)).collect()),
        made_by: MadeBy::new(served),
    }
}

/// TGI's headers: what the answer took. Times are in milliseconds, but `x-compute-time` is in seconds.
fn report(
    headers: &mut HeaderMap,
    finish: &Finish,
    characters: usize,
    validation: Duration,
    total: Duration,
) {
    let timings = finish.timings;
    let inference = timings.prefill + timings.decode;
    let tokens = u32::try_from(finish.completion_tokens).unwrap_or(u32::MAX).max(1);
    let milliseconds = |time: Duration| time.as_millis().to_string();
    for (name, value) in [
        ("x-compute-type", "cpu".to_owned()),
        ("x-compute-time", total.as_secs_f64().to_string()),
        ("x-compute-characters", characters.to_string()),
        ("x-total-time", milliseconds(total)),
        ("x-validation-time", milliseconds(validation)),
        ("x-queue-time", milliseconds(timings.queue)),
        ("x-inference-time", milliseconds(inference)),
        ("x-time-per-token", milliseconds(inference / tokens)),
        ("x-prompt-tokens", finish.prompt_tokens.to_string()),
        ("x-generated-tokens", finish.completion_tokens.to_string()),
    ] {
        put(headers, name, value);
    }
}

fn put(headers: &mut HeaderMap, name: &'static str, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
