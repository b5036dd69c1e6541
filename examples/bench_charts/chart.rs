//! A picture: panels side by side with the same axes, both logarithmic, and one legend.

use super::measurements::Measurement;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

pub(crate) const PANEL: (u32, u32) = (380, 400);
pub(crate) const LEGEND_WIDTH: u32 = 210;
pub(crate) const TITLE_HEIGHT: u32 = 40;
pub(crate) const FONT: &str = "sans-serif";

/// Everyone's colour, in every picture; the order of the legend.
const CONTENDERS: [(&str, RGBColor); 12] = [
    ("pcmap", RGBColor(0xd6, 0x1f, 0x1f)),
    ("partition_point", RGBColor(0x22, 0x22, 0x22)),
    ("rwlock_btreemap", RGBColor(0x1f, 0x77, 0xb4)),
    ("parking_lot_btreemap", RGBColor(0x76, 0xb7, 0xe0)),
    ("arc_swap_vec", RGBColor(0x2c, 0xa0, 0x2c)),
    ("textbook", RGBColor(0x9a, 0xd1, 0x4b)),
    ("crossbeam_skiplist", RGBColor(0xe3, 0x8b, 0x12)),
    ("scc_tree_index", RGBColor(0x8c, 0x56, 0x4b)),
    ("global_counter_vec", RGBColor(0x94, 0x67, 0xbd)),
    ("dl_find_object", RGBColor(0x17, 0xbe, 0xcf)),
    ("mmap_mprotect_munmap", RGBColor(0x8a, 0x8a, 0x8a)),
    ("resume_only", RGBColor(0xbc, 0xbd, 0x22)),
];

/// Times against the number of ranges, for several contenders.
#[derive(Debug)]
pub(crate) struct Panel {
    title: String,
    /// In the order of the legend; none empty.
    series: Vec<Series>,
}

/// One contender's line.
#[derive(Debug)]
struct Series {
    name: &'static str,
    colour: RGBColor,
    /// Ranges in the map, nanoseconds; ascending.
    points: Vec<(f64, f64)>,
}

/// A picture to be drawn.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) panels: Vec<Panel>,
}

impl Panel {
    pub(crate) fn new<'m>(
        title: &str,
        measurements: impl Iterator<Item = &'m Measurement> + Clone,
    ) -> Self {
        let series = CONTENDERS.iter().map(|&(name, colour)| {
            let own = measurements.clone().filter(|measured| measured.contender == name);
            let mut points: Vec<_> = own.map(|own| (own.n as f64, own.nanos)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series { name, colour, points }
        });
        let series = series.filter(|series| !series.points.is_empty()).collect();
        Self { title: title.to_owned(), series }
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    fn draw<DB: DrawingBackend<ErrorType: 'static>>(
        &self,
        area: &DrawingArea<DB, Shift>,
        axes: &Axes,
        is_first: bool,
    ) -> Result<(), Box<dyn Error>> {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, (FONT, 16))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(
                (axes.n.0..axes.n.1).log_scale(),
                (axes.nanos.0..axes.nanos.1).log_scale(),
            )?;
        chart
            .configure_mesh()
            .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
            .light_line_style(RGBColor(0xf4, 0xf4, 0xf4))
            .x_labels(7)
            .y_labels(8)
            .x_desc("ranges in the map")
            .y_desc(if is_first { "time" } else { "" })
            .x_label_formatter(&|n| format_count(*n))
            .y_label_formatter(&|nanos| format_nanos(*nanos))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .draw()?;
        // The subject last, over the others.
        for Series { name, colour, points } in self.series.iter().rev() {
            let width = if *name == "pcmap" { 3 } else { 2 };
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(width)))?;
            let dots = points.iter().map(|&point| Circle::new(point, width + 1, colour.filled()));
            chart.draw_series(dots)?;
        }
        Ok(())
    }
}

/// What both axes span, the same in all panels.
#[derive(Debug)]
struct Axes {
    n: (f64, f64),
    nanos: (f64, f64),
}

impl Axes {
    fn around(points: impl Iterator<Item = (f64, f64)>) -> Self {
        let mut axes = Self { n: (f64::MAX, 0.0), nanos: (f64::MAX, 0.0) };
        for (n, nanos) in points {
            // With some room on both sides.
            axes.n = (axes.n.0.min(n / 1.3), axes.n.1.max(n * 1.3));
            axes.nanos = (axes.nanos.0.min(nanos / 1.4), axes.nanos.1.max(nanos * 1.4));
        }
        axes
    }
}

impl Chart {
    /// Writes the file; `false` if there is nothing to show.
    ///
    /// # Errors
    ///
    /// What the system or the plotting library says.
    pub(crate) fn draw(&self, folder: &Path) -> Result<bool, Box<dyn Error>> {
        let panels: Vec<_> = self.panels.iter().filter(|panel| !panel.series.is_empty()).collect();
        if panels.is_empty() {
            return Ok(false);
        }
        let path = folder.join(self.file);
        let width = PANEL.0 * panels.len() as u32 + LEGEND_WIDTH;
        let picture = SVGBackend::new(&path, (width, PANEL.1 + TITLE_HEIGHT)).into_drawing_area();
        picture.fill(&WHITE)?;
        let title = (FONT, 19).into_font().style(FontStyle::Bold).color(&BLACK);
        let (top, body) = picture.split_vertically(TITLE_HEIGHT);
        top.draw(&Text::new(self.title, (16, 14), title))?;
        let (plots, legend) = body.split_horizontally(PANEL.0 * panels.len() as u32);
        let axes = Axes::around(self.panels.iter().flat_map(Panel::points));
        for (i, (area, panel)) in
            plots.split_evenly((1, panels.len())).iter().zip(&panels).enumerate()
        {
            panel.draw(area, &axes, i == 0)?;
        }
        self.draw_legend(&legend)?;
        picture.present()?;
        Ok(true)
    }

    fn draw_legend<DB: DrawingBackend<ErrorType: 'static>>(
        &self,
        area: &DrawingArea<DB, Shift>,
    ) -> Result<(), Box<dyn Error>> {
        const TOP: i32 = 44;
        const LINE: i32 = 24;
        let shown = |name| {
            self.panels.iter().any(|panel| panel.series.iter().any(|series| series.name == name))
        };
        let shown = CONTENDERS.iter().filter(|(name, _)| shown(*name));
        for ((name, colour), y) in shown.zip((TOP..).step_by(LINE as usize)) {
            let width = if *name == "pcmap" { 3 } else { 2 };
            let line = vec![(4, y), (28, y)];
            area.draw(&PathElement::new(line, colour.stroke_width(width)))?;
            area.draw(&Circle::new((16, y), width + 1, colour.filled()))?;
            area.draw(&Text::new(*name, (36, y - 7), (FONT, 14).into_font().color(&BLACK)))?;
        }
        Ok(())
    }
}

fn format_count(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => format!("{n}"),
    }
}

fn format_nanos(nanos: f64) -> String {
    match nanos {
        t if t >= 1e9 => format!("{} s", t / 1e9),
        t if t >= 1e6 => format!("{} ms", t / 1e6),
        t if t >= 1e3 => format!("{} µs", t / 1e3),
        t => format!("{t} ns"),
    }
}
