//! A picture of a soak's samples: resident memory and garbage over time.

use plotters::prelude::*;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

const SIZE: (u32, u32) = (760, 300);
const FONT: &str = "sans-serif";

/// One figure over time.
struct Panel {
    title: &'static str,
    colour: RGBColor,
    /// Minutes, and the figure.
    points: Vec<(f64, f64)>,
}

/// Writes `soak.svg` from `soak.txt` in the same folder; `false` if there is nothing to show.
///
/// # Errors
///
/// What the system or the plotting library says, or the line that is not understood.
pub(crate) fn draw(folder: &Path) -> Result<bool, Box<dyn Error>> {
    let path = folder.join("soak.txt");
    if !path.exists() {
        return Ok(false);
    }
    let text = fs::read_to_string(&path)?;
    let samples = text.lines().filter_map(|line| line.strip_prefix("sample "));
    let mut memory =
        Panel { title: "resident memory, MiB", colour: RGBColor(0xd6, 0x1f, 0x1f), points: vec![] };
    let mut garbage =
        Panel { title: "garbage, MiB", colour: RGBColor(0x1f, 0x77, 0xb4), points: vec![] };
    for words in samples {
        let figure = |key| -> Result<f64, Box<dyn Error>> {
            let all: BTreeMap<_, _> =
                words.split_whitespace().filter_map(|word| word.split_once('=')).collect();
            Ok(all.get(key).ok_or_else(|| format!("{}: {words:?}", path.display()))?.parse()?)
        };
        let minutes = figure("s")? / 60.0;
        memory.points.push((minutes, figure("resident_kib")? / 1024.0));
        garbage.points.push((minutes, figure("garbage_bytes")? / f64::from(1 << 20)));
    }
    if memory.points.is_empty() {
        return Ok(false);
    }
    let file = folder.join("soak.svg");
    let picture = SVGBackend::new(&file, SIZE).into_drawing_area();
    picture.fill(&WHITE)?;
    for (area, panel) in picture.split_evenly((1, 2)).iter().zip([memory, garbage]) {
        let (width, height) = panel
            .points
            .iter()
            .fold((0.0_f64, 0.0_f64), |most, point| (most.0.max(point.0), most.1.max(point.1)));
        let mut chart = ChartBuilder::on(area)
            .caption(panel.title, (FONT, 16))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..width, 0.0..height * 1.1)?;
        chart
            .configure_mesh()
            .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
            .light_line_style(RGBColor(0xf4, 0xf4, 0xf4))
            .x_labels(6)
            .y_labels(6)
            .x_desc("minutes")
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .draw()?;
        chart.draw_series(LineSeries::new(panel.points, panel.colour.stroke_width(1)))?;
    }
    picture.present()?;
    Ok(true)
}
