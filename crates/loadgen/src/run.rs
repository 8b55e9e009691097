//! The command: a warm-up, a measured run, and its report.

use std::{
    fs,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::runtime;

use crate::{
    arguments::{LoadArguments, Mode, Pick},
    client::Client,
    dialect::Dialect,
    generator::{self, Plan, Target},
    output::{print, write_json},
    plot,
    report::{self, Report},
    traffic::{PlannedRequest, Traffic},
};

/// Requests that are sent if neither their number nor a duration is given.
const REQUESTS: usize = 64;
/// Lengths, in words, of the two prompts that measure how many tokens a server adds to prompts.
const PROBE_WORDS: [usize; 2] = [16, 32];

/// Puts a server under load and reports the figures. The exit status is 1 if a request failed.
///
/// # Errors
/// If an argument makes no sense, the server cannot be reached, or a file cannot be written.
pub fn run(arguments: &LoadArguments) -> Result<ExitCode> {
    check(arguments)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(arguments))
}

fn check(arguments: &LoadArguments) -> Result<()> {
    ensure!(arguments.clients > 0, "--clients is 0, but must be 1 or more");
    ensure!(
        arguments.requests != Some(0),
        "--requests is 0, but must be 1 or more"
    );
    for (name, value) in [
        ("--rate", arguments.rate),
        ("--timeout", arguments.timeout),
        ("--duration", arguments.duration.unwrap_or(1.0)),
    ] {
        ensure!(
            value.is_finite() && value > 0.0 && value < 1e9,
            "{name} is {value}, but must be above 0"
        );
    }
    Ok(())
}

async fn measure(arguments: &LoadArguments) -> Result<ExitCode> {
    let mut client = Client::new(&arguments.url, Duration::from_secs_f64(arguments.timeout))?;
    if let Some(key) = &arguments.api_key {
        client = client.with_key(key)?;
    }
    let dialect = Dialect::resolve(&client, arguments).await?;
    let adapters = dialect.adapters();
    let target = Arc::new(Target { client, dialect });
    let seed = arguments.seed.unwrap_or_else(new_seed);
    let mut traffic = Traffic::new(
        seed,
        arguments.prompt_tokens,
        arguments.output_tokens,
        adapters,
        arguments.pick,
        arguments.rate,
    );
    let added = added_tokens(&target, &mut traffic).await?;
    ensure!(
        added < arguments.prompt_tokens.least,
        "--prompt-tokens is {}, but this server adds {added} tokens to every prompt",
        arguments.prompt_tokens.least
    );
    traffic.set_added_tokens(added);

    let duration = arguments.duration.map(Duration::from_secs_f64);
    let plan = Plan {
        mode: arguments.mode,
        clients: arguments.clients,
        requests: arguments
            .requests
            .unwrap_or(if duration.is_some() { usize::MAX } else { REQUESTS }),
        duration,
    };
    let warm_up = Plan {
        mode: Mode::Closed,
        requests: arguments.warmup,
        duration: None,
        ..plan
    };
    let (_, traffic) = generator::run(&target, traffic, warm_up).await?;
    let (records, _) = generator::run(&target, traffic, plan).await?;
    let report = Report::of(&records);

    let title = title(arguments, adapters);
    if let Some(path) = &arguments.plot {
        let picture = plot::svg(&title, &records);
        fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &arguments.json {
        let json = json!({
            "load": {
                "url": arguments.url,
                "dialect": format!("{:?}", arguments.dialect).to_lowercase(),
                "mode": format!("{:?}", arguments.mode).to_lowercase(),
                "clients": (arguments.mode == Mode::Closed).then_some(arguments.clients),
                "rate": (arguments.mode == Mode::Open).then_some(arguments.rate),
                "adapters": adapters,
                "pick": pick_name(arguments.pick),
                "prompt_tokens": [arguments.prompt_tokens.least, arguments.prompt_tokens.most],
                "output_tokens": [arguments.output_tokens.least, arguments.output_tokens.most],
                "seed": seed,
            },
            "figures": report,
            "requests": report::requests_json(&records),
        });
        write_json(path, &json)?;
    }
    if arguments.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
        print(&format!("{title}\n{}", report.text()))?;
    }
    Ok(ExitCode::from(u8::from(report.failed() > 0)))
}

/// The load in one line.
fn title(arguments: &LoadArguments, adapters: usize) -> String {
    let loop_of = match arguments.mode {
        Mode::Closed => format!("closed loop, {} clients", arguments.clients),
        Mode::Open => format!("open loop, {} requests/s", arguments.rate),
    };
    let models = match adapters {
        0 => "base".to_owned(),
        1 => "1 adapter".to_owned(),
        many => format!("{many} adapters, {}", pick_name(arguments.pick)),
    };
    format!("{}: {loop_of}; {models}", arguments.url)
}

/// A seed that differs from those of earlier runs: the time.
fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

fn pick_name(pick: Pick) -> String {
    match pick {
        Pick::RoundRobin => "round-robin".to_owned(),
        Pick::Zipf(exponent) => format!("zipf:{exponent}"),
    }
}

/// The tokens that the server adds to a prompt's words, measured with two requests.
async fn added_tokens(target: &Target, traffic: &mut Traffic) -> Result<usize> {
    let mut added = Vec::new();
    for words in PROBE_WORDS {
        let probe = PlannedRequest {
            prompt: traffic.prompt(words),
            adapter: None,
            output_tokens: 1,
            due: Duration::ZERO,
        };
        let record = generator::send(target, &probe, Instant::now(), Duration::ZERO).await;
        if let Some(failure) = record.failure {
            bail!("the server does not answer a request of one token: {failure}");
        }
        let Some(tokens) = record.prompt_tokens else {
            tracing::warn!(
                "the server does not report the tokens of prompts: each word is counted as one token"
            );
            return Ok(0);
        };
        added.push(tokens.saturating_sub(words));
    }
    if added[0] != added[1] {
        tracing::warn!(
            "the model's vocabulary splits words: {} words were {} tokens; prompts will be longer than --prompt-tokens",
            PROBE_WORDS[1],
            PROBE_WORDS[1] + added[1]
        );
    }
    Ok(added[0])
}
