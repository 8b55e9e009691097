//! What LoRAX adds to TGI's dialect, as its clients see it.

use serde_json::{Value, json};

use crate::support::{Options, Server, server, server_with};

async fn generate(server: &Server, inputs: &str, parameters: Value) -> Value {
    let body = json!({"inputs": inputs, "parameters": parameters});
    let answer = server.post("/generate", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn tokens_have_their_alternatives_within_them() {
    let server = server();
    let parameters =
        json!({"return_k_alternatives": 2, "top_n_tokens": 1, "details": true, "max_new_tokens": 2});
    let body = generate(&server, "a", parameters.clone()).await;
    let details = &body["details"];
    let first = &details["tokens"][0];
    let alternatives = first["alternative_tokens"].as_array().expect("a list");
    let texts: Vec<&Value> = alternatives
        .iter()
        .map(|alternative| &alternative["text"])
        .collect();
    assert_eq!(texts, ["b", "!"]);
    assert_eq!(alternatives[0]["logprob"], first["logprob"]);
    let mut fields: Vec<&String> = alternatives[1].as_object().expect("a token").keys().collect();
    fields.sort();
    assert_eq!(fields, ["id", "logprob", "text"]);
    assert_eq!(details["top_tokens"][0].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&first["skipped"], &details["skipped_tokens"]),
        (&json!(false), &json!(0))
    );

    let body = json!({"inputs": "a", "parameters": parameters});
    let (events, _) = server.post("/generate_stream", body).await.chunks();
    assert_eq!(
        events[0]["token"]["alternative_tokens"],
        first["alternative_tokens"]
    );
    let body = generate(&server, "a", json!({"details": true})).await;
    assert!(body["details"]["tokens"][0].get("alternative_tokens").is_none());
}

#[tokio::test]
async fn a_prompt_can_be_what_a_user_says_in_a_chat() {
    let server = server();
    let parameters = json!({"apply_chat_template": true, "return_full_text": true, "decoder_input_details": true, "max_new_tokens": 2});
    let body = generate(&server, "hi", parameters).await;
    assert_eq!(body["generated_text"], "hiab");
    let prefill = body["details"]["prefill"].as_array().expect("tokens");
    let text: String = prefill
        .iter()
        .filter_map(|token| token["text"].as_str())
        .collect();
    assert_eq!(text, "<start>user:hi<end><start>");

    let server = server_with(Options {
        chat: false,
        ..Options::default()
    });
    let body = json!({"inputs": "hi", "parameters": {"apply_chat_template": true}});
    let answer = server.post("/generate", body).await;
    assert_eq!(answer.status, 422);
    assert!(
        answer.text.contains("parameters.apply_chat_template"),
        "{}",
        answer.text
    );
}

#[tokio::test]
async fn a_temperature_of_nought_takes_the_likeliest_token() {
    let server = server();
    let parameters = json!({"temperature": 0, "do_sample": true, "details": true});
    let body = generate(&server, "w", parameters).await;
    assert_eq!(body["generated_text"], "xyz");
    assert_eq!(body["details"]["seed"], Value::Null);
}

#[tokio::test]
async fn penalties_and_ends_are_loraxs() {
    let server = server();
    let parameters = json!({"presence_penalty": 1.0, "ignore_eos_token": true, "max_new_tokens": 5});
    // The end has no text.
    assert_eq!(generate(&server, "w", parameters).await["generated_text"], "xyza");
}
