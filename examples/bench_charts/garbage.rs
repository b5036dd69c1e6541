//! A picture of what writers leave behind over time: garbage and resident memory, by the number of
//! writers, and garbage beside a reader that is stopped.

use super::chart::{FONT, LEGEND_WIDTH, PANEL, TITLE_HEIGHT};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// The benches that sample, by the names of their files.
pub(crate) const BENCHES: [&str; 2] = ["garbage", "garbage_mimalloc"];

/// Less is drawn as this much: the axis is logarithmic.
const LEAST: f64 = 1024.0;

/// Every number of writers has its colour in all panels.
const WRITERS: [(usize, RGBColor); 5] = [
    (1, RGBColor(0x2c, 0xa0, 0x2c)),
    (2, RGBColor(0x1f, 0x77, 0xb4)),
    (4, RGBColor(0x94, 0x67, 0xbd)),
    (8, RGBColor(0xe3, 0x8b, 0x12)),
    (16, RGBColor(0xd6, 0x1f, 0x1f)),
];

/// Title, and the case and the figure of the lines.
type Panel = (&'static str, &'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 3] = [
    ("garbage", "backlog", |sample| sample.garbage_bytes),
    ("resident memory", "backlog", |sample| sample.resident_bytes),
    ("garbage, one reader stopped", "stopped_reader", |sample| sample.garbage_bytes),
];

/// One line of a series.
struct Sample {
    case: String,
    writers: usize,
    seconds: f64,
    garbage_bytes: f64,
    resident_bytes: f64,
}

/// Writes `<bench>.svg` from `<bench>.txt` in the same folder; `false` if there is nothing to show.
///
/// # Errors
///
/// What the system or the plotting library says, or the line that is not understood.
pub(crate) fn draw(folder: &Path, bench: &str) -> Result<bool, Box<dyn Error>> {
    let path = folder.join(bench).with_extension("txt");
    if !path.exists() {
        return Ok(false);
    }
    let mut samples = Vec::new();
    for words in fs::read_to_string(&path)?.lines().filter_map(|line| line.strip_prefix("sample "))
    {
        let sample = parse(words);
        samples.push(sample.ok_or_else(|| format!("{}: {words:?}", path.display()))?);
    }
    let shown = |case: &str| samples.iter().any(|sample| sample.case == case);
    let panels: Vec<_> = PANELS.into_iter().filter(|(_, case, _)| shown(case)).collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let file = folder.join(bench).with_extension("svg");
    let width = PANEL.0 * panels.len() as u32;
    let size = (width + LEGEND_WIDTH, PANEL.1 + TITLE_HEIGHT);
    let picture = SVGBackend::new(&file, size).into_drawing_area();
    picture.fill(&WHITE)?;
    let (top, body) = picture.split_vertically(TITLE_HEIGHT);
    let title = format!("Writers that never pause, on 100 ranges ({bench})");
    let style = (FONT, 19).into_font().style(FontStyle::Bold).color(&BLACK);
    top.draw(&Text::new(title, (16, 14), style))?;
    let (plots, legend) = body.split_horizontally(width);
    for (area, panel) in plots.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(area, panel, &samples)?;
    }
    draw_legend(&legend, &samples)?;
    picture.present()?;
    Ok(true)
}

fn parse(words: &str) -> Option<Sample> {
    let words: BTreeMap<&str, &str> =
        words.split_whitespace().map(|word| word.split_once('=')).collect::<Option<_>>()?;
    let number = |key| words.get(key)?.parse::<f64>().ok();
    Some(Sample {
        case: (*words.get("case")?).to_owned(),
        writers: words.get("writers")?.parse().ok()?,
        seconds: number("s")?,
        garbage_bytes: number("garbage_bytes")?,
        // Not every system tells.
        resident_bytes: number("resident_mib").unwrap_or(0.0) * f64::from(1 << 20),
    })
}

fn draw_panel<DB: DrawingBackend<ErrorType: 'static>>(
    area: &DrawingArea<DB, Shift>,
    (title, case, figure): Panel,
    samples: &[Sample],
) -> Result<(), Box<dyn Error>> {
    let own = samples.iter().filter(|sample| sample.case == case);
    let figure = |sample: &Sample| figure(sample).max(LEAST);
    let most = own.clone().map(figure).fold(LEAST, f64::max);
    let least = own.clone().map(figure).fold(most, f64::min);
    let length = own.clone().map(|sample| sample.seconds).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 16))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..length, (least / 1.4..most * 1.4).log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
        .light_line_style(RGBColor(0xf4, 0xf4, 0xf4))
        .x_labels(6)
        .y_labels(10)
        .x_desc("seconds")
        .y_label_formatter(&|bytes| format_bytes(*bytes))
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()?;
    for (writers, colour) in WRITERS {
        let series = own.clone().filter(|sample| sample.writers == writers);
        let points = series.map(|sample| (sample.seconds, figure(sample)));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}

fn draw_legend<DB: DrawingBackend<ErrorType: 'static>>(
    area: &DrawingArea<DB, Shift>,
    samples: &[Sample],
) -> Result<(), Box<dyn Error>> {
    const TOP: i32 = 44;
    const LINE: i32 = 24;
    let shown = |writers| samples.iter().any(|sample| sample.writers == writers);
    let shown = WRITERS.into_iter().filter(|(writers, _)| shown(*writers));
    for ((writers, colour), y) in shown.zip((TOP..).step_by(LINE as usize)) {
        area.draw(&PathElement::new(vec![(4, y), (28, y)], colour.stroke_width(2)))?;
        let text = format!("{writers} writer{}", if writers == 1 { "" } else { "s" });
        area.draw(&Text::new(text, (36, y - 7), (FONT, 14).into_font().color(&BLACK)))?;
    }
    Ok(())
}

fn format_bytes(bytes: f64) -> String {
    match bytes / 1024.0 {
        kib if kib >= 1_048_576.0 => format!("{} GiB", round(kib / 1_048_576.0)),
        kib if kib >= 1024.0 => format!("{} MiB", round(kib / 1024.0)),
        kib => format!("{} KiB", round(kib)),
    }
}

/// Marks lie on powers of two, and near them where the axis begins.
fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
