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
use multigraft_engine::Finish;

use super::{
    parameters::{CHAT_FIELD, Generate},
    streaming::GenerateStream,
    types::{Answered, AnsweringAdapter, BestOf, Details, PrefillToken, Sequence, WireToken, finish_reason},
};
use crate::{
    caller::session::Session,
    contract::model::ResolvedModel,
    generation::{answers::Answer, request::Generation, stream},
    http::{dialect::Dialect, error::ApiError, fields::Fields},
};

/// A request whose answers are being generated.
struct Accepted {
    generate: Generate,
    generation: Generation,
    /// The time that validation and tokenisation took.
    validation: Duration,
    began: Instant,
}

/// `POST /generate`: the answer in one piece.
pub(crate) async fn generate(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, state.limits(), |choice| state.defaults(choice))?;
    if generate.stream == Some(true) {
        let message = "`stream` is true, but /generate answers in one piece; use /generate_stream or /";
        return Err(ApiError::invalid("stream", message));
    }
    let accepted = accept(&state, generate, false).await?;
    whole(&state, accepted, |answered| Json(answered).into_response()).await
}

/// `POST /generate_stream`: the answer token by token.
pub(crate) async fn generate_stream(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, state.limits(), |choice| state.defaults(choice))?;
    if generate.stream == Some(false) {
        let message = "`stream` is false, but /generate_stream streams; use /generate or /";
        return Err(ApiError::invalid("stream", message));
    }
    let accepted = accept(&state, generate, true).await?;
    Ok(streamed(&state, accepted))
}

/// `POST /`: a stream if `stream` is true, else a list of one answer.
pub(crate) async fn compatible(state: Session, fields: Fields) -> Result<Response, ApiError> {
    let generate = Generate::take(fields, state.limits(), |choice| state.defaults(choice))?;
    if generate.stream == Some(true) {
        let accepted = accept(&state, generate, true).await?;
        return Ok(streamed(&state, accepted));
    }
    let accepted = accept(&state, generate, false).await?;
    whole(&state, accepted, |answered| Json([answered]).into_response()).await
}

async fn accept(state: &Session, mut generate: Generate, stream: bool) -> Result<Accepted, ApiError> {
    let began = Instant::now();
    let request = &mut generate.request;
    if stream && request.prompt_logprobs.is_some() {
        let field = "parameters.decoder_input_details";
        let message = format!("`{field}` is only given with answers in one piece, not in streams");
        return Err(ApiError::invalid(field, message));
    }
    if stream && request.answers > 1 {
        let field = "parameters.best_of";
        let message =
            format!("`{field}` cannot be streamed: which answer is the best is known when all are made");
        return Err(ApiError::invalid(field, message));
    }
    request.choice.check(state)?;
    // Events of streams have the log-probability of their token, other answers only in the details.
    // `best_of` chooses by log-probabilities.
    let logprobs = stream || generate.details || request.answers > 1;
    request.logprobs = logprobs.then_some(generate.top_n_tokens.max(generate.alternatives));
    request.stream = stream;
    let generation = request.begin(state, Dialect::Tgi).await.map_err(|error| {
        match error.field() {
            // The chat template refuses the conversation.
            Some("messages") => ApiError::invalid(CHAT_FIELD, format!("`{CHAT_FIELD}`: {error}")),
            _ => error,
        }
    })?;
    Ok(Accepted {
        generate,
        generation,
        validation: began.elapsed(),
        began,
    })
}

fn streamed(state: &Session, accepted: Accepted) -> Response {
    let generate = accepted.generate;
    let Generation {
        answers,
        model,
        max_tokens,
        ..
    } = accepted.generation;
    let characters = generate.inputs.chars().count();
    let format = GenerateStream {
        tokenizer: Arc::clone(state.tokenizer()),
        adapter: AnsweringAdapter::new(&model),
        details: generate.details,
        top_n_tokens: generate.top_n_tokens,
        alternatives: generate.alternatives,
        draws: generate.request.sampling.temperature > 0.0,
        stop_strings: !generate.request.stop.strings.is_empty(),
        max_tokens,
        text: if generate.return_full_text {
            generate.inputs
        } else {
            String::new()
        },
        count: 0,
        held: None,
    };
    let mut response = stream::respond(answers, format);
    let headers = response.headers_mut();
    put(headers, "x-compute-type", "cpu".to_owned());
    put(headers, "x-compute-characters", characters.to_string());
    model.label(headers);
    response
}

async fn whole(
    state: &Session,
    accepted: Accepted,
    respond: impl FnOnce(Answered) -> Response,
) -> Result<Response, ApiError> {
    let Accepted {
        generate,
        generation: Generation { answers, model, .. },
        validation,
        began,
    } = accepted;
    let mut answers = answers.collect().await?;
    let prompt = answers.first_mut().map(|first| std::mem::take(&mut first.prompt));
    let prefill: Vec<PrefillToken> = prompt.into_iter().flatten().map(PrefillToken::new).collect();
    // Of equals the first one wins.
    let best = (0..answers.len()).rev();
    let best = best.max_by(|&a, &b| answers[a].mean_logprob().total_cmp(&answers[b].mean_logprob()));
    let Some(best) = best else {
        return Err(ApiError::Failed("the engine gave no answer".to_owned()));
    };
    let answer = answers.remove(best);
    let finish = answer.finish.clone();
    let characters = generate.inputs.chars().count();
    let details = generate
        .details
        .then(|| details(state, &model, &generate, &answer, &answers, &prefill));
    let generated_text = generate.text_of(&answer);
    let mut response = respond(Answered {
        generated_text,
        details,
    });
    let headers = response.headers_mut();
    report(headers, &finish, characters, validation, began.elapsed());
    model.label(headers);
    Ok(response)
}

fn details(
    state: &Session,
    model: &ResolvedModel,
    generate: &Generate,
    answer: &Answer,
    others: &[Answer],
    prefill: &[PrefillToken],
) -> Details {
    let tokenizer = state.tokenizer();
    let sequence = |answer: &Answer| {
        let tokens = answer.tokens.iter();
        let top = tokens.clone();
        let count = generate.top_n_tokens;
        Sequence {
            finish_reason: finish_reason(&answer.finish),
            generated_tokens: answer.finish.completion_tokens,
            seed: (generate.request.sampling.temperature > 0.0).then_some(answer.finish.seed),
            prefill: prefill.to_vec(),
            tokens: tokens
                .map(|token| WireToken::whole(tokenizer, token, generate.alternatives))
                .collect(),
            top_tokens: (count > 0)
                .then(|| top.map(|token| WireToken::top(tokenizer, token, count)).collect()),
        }
    };
    let other = |other: &Answer| BestOf {
        generated_text: generate.text_of(other),
        sequence: sequence(other),
    };
    Details {
        sequence: sequence(answer),
        prompt_tokens: answer.finish.prompt_tokens,
        skipped_tokens: 0,
        best_of_sequences: (generate.request.answers > 1).then(|| others.iter().map(other).collect()),
        adapter: AnsweringAdapter::new(model),
    }
}

impl Generate {
    /// The text of an answer, after the prompt with `return_full_text`.
    fn text_of(&self, answer: &Answer) -> String {
        match self.return_full_text {
            true => format!("{}{}", self.inputs, answer.text),
            false => answer.text.clone(),
        }
    }
}

/// TGI's headers: time and tokens of the answer. Times are in milliseconds, except
/// `x-compute-time`, which is in seconds.
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
