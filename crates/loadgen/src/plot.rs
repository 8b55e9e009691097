//! A run as a picture: first tokens over time, and how latencies are distributed. Plain SVG.

use std::fmt::Write as _;

use crate::record::Record;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 320.0;
/// Around each panel, for labels.
const MARGIN: f64 = 60.0;
/// A curve of a distribution has at most so many points.
const POINTS: usize = 400;

/// The picture of the answered requests.
pub(crate) fn svg(title: &str, records: &[Record]) -> String {
    let answered: Vec<&Record> = records.iter().filter(|record| record.failure.is_none()).collect();
    let mut out = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{x}" y="24" font-size="14">{}</text>"##,
        escaped(title),
        w = 2.0 * (WIDTH + MARGIN) + MARGIN,
        h = HEIGHT + 2.0 * MARGIN,
        x = MARGIN,
    );
    first_tokens(&mut out, &answered);
    distributions(&mut out, &answered);
    out.push_str("</svg>\n");
    out
}

/// A point per request: when it was sent, and how long its first token took.
fn first_tokens(out: &mut String, answered: &[&Record]) {
    let end = answered
        .iter()
        .map(|record| record.sent.as_secs_f64())
        .fold(1e-3, f64::max);
    let slowest = answered.iter().map(|record| record.ttft()).fold(1e-3, f64::max);
    panel(
        out,
        MARGIN,
        "sent at, s",
        "first token after, ms",
        (end, slowest * 1e3),
    );
    for record in answered {
        let x = MARGIN + record.sent.as_secs_f64() / end * WIDTH;
        let y = MARGIN + HEIGHT - record.ttft() / slowest * HEIGHT;
        // Neighbouring adapters get colours far apart: the golden angle.
        let hue = record
            .adapter
            .map_or(0.0, |adapter| (adapter as f64 * 137.5) % 360.0);
        let name = record
            .adapter
            .map_or("base".to_owned(), |adapter| format!("adapter {adapter}"));
        let _ = writeln!(
            out,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="hsl({hue:.0},70%,45%)" fill-opacity="0.7"><title>{name}: {:.1} ms</title></circle>"#,
            record.ttft() * 1e3
        );
    }
}

/// How many of the requests (or gaps) took at most so long, on a logarithmic axis.
fn distributions(out: &mut String, answered: &[&Record]) {
    let left = WIDTH + 2.0 * MARGIN;
    let curves = [
        (
            "ITL",
            "#2a9d3a",
            answered
                .iter()
                .flat_map(|record| record.gaps.iter().copied())
                .collect::<Vec<_>>(),
        ),
        (
            "TTFT",
            "#1f5fd0",
            answered.iter().map(|record| record.ttft()).collect(),
        ),
        (
            "end to end",
            "#c0392b",
            answered.iter().map(|record| record.end_to_end()).collect(),
        ),
    ];
    // A tenth of a millisecond is below everything that is measured here.
    let (low, high) = (-1.0, {
        let slowest = curves
            .iter()
            .flat_map(|(.., values)| values.iter().copied())
            .fold(1e-3, f64::max);
        (slowest * 1e3).log10().ceil().max(1.0)
    });
    let x = |ms: f64| left + (ms.max(0.1).log10() - low) / (high - low) * WIDTH;
    frame(out, left, "ms, logarithmic", "share of all, %");
    for decade in low as i32..=high as i32 {
        label(
            out,
            x(10f64.powi(decade)),
            MARGIN + HEIGHT + 16.0,
            "middle",
            &format!("{}", 10f64.powi(decade)),
        );
    }
    for percent in [0, 25, 50, 75, 100] {
        let y = MARGIN + HEIGHT - f64::from(percent) / 100.0 * HEIGHT;
        label(out, left - 6.0, y + 4.0, "end", &percent.to_string());
    }
    for (index, (name, colour, mut values)) in curves.into_iter().enumerate() {
        values.sort_by(f64::total_cmp);
        let step = values.len().div_ceil(POINTS).max(1);
        let last = values.len().saturating_sub(1);
        let mut points = String::new();
        for (at, value) in values
            .iter()
            .enumerate()
            .filter(|(at, _)| at % step == 0 || *at == last)
        {
            let y = MARGIN + HEIGHT - (at + 1) as f64 / values.len() as f64 * HEIGHT;
            let _ = write!(points, "{:.1},{y:.1} ", x(value * 1e3));
        }
        let _ = writeln!(
            out,
            r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#
        );
        let y = MARGIN + 18.0 + 16.0 * index as f64;
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{y:.1}" fill="{colour}">{name}</text>"#,
            left + 10.0
        );
    }
}

/// A panel with linear axes from 0 to `(right, top)`.
fn panel(out: &mut String, left: f64, below: &str, beside: &str, (right, top): (f64, f64)) {
    frame(out, left, below, beside);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        label(
            out,
            left + share * WIDTH,
            MARGIN + HEIGHT + 16.0,
            "middle",
            &tick(share * right),
        );
        label(
            out,
            left - 6.0,
            MARGIN + HEIGHT * (1.0 - share) + 4.0,
            "end",
            &tick(share * top),
        );
    }
}

fn frame(out: &mut String, left: f64, below: &str, beside: &str) {
    let _ = writeln!(
        out,
        r##"<rect x="{left}" y="{MARGIN}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>"##
    );
    label(out, left + WIDTH / 2.0, MARGIN + HEIGHT + 36.0, "middle", below);
    label(out, left, MARGIN - 8.0, "start", beside);
}

fn label(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
        escaped(text)
    );
}

fn tick(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_picture_has_a_point_per_answer_and_a_curve_per_latency() {
        let ms = Duration::from_millis;
        let records: Vec<Record> = (0..5)
            .map(|i| Record {
                adapter: (i > 0).then_some(i as usize),
                sent: ms(i * 100),
                first: Some(ms(i * 100 + 20)),
                last: Some(ms(i * 100 + 50)),
                end: ms(i * 100 + 50),
                gaps: vec![0.01; 3],
                prompt_tokens: Some(8),
                output_tokens: 4,
                wanted: 4,
                failure: None,
            })
            .collect();
        let picture = svg("a < b", &records);
        assert_eq!(picture.matches("<circle").count(), 5);
        assert_eq!(picture.matches("<polyline").count(), 3);
        assert!(picture.contains("a &lt; b") && !picture.contains("NaN"));
        assert!(!svg("nothing", &[]).contains("NaN"));
    }
}
