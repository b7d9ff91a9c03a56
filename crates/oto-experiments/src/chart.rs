//! Learning curves as pictures: one drawing, as SVG for pages and as PNG for everything else. The font is built in, so
//! that a chart looks the same on every machine.

use ab_glyph::{Font, FontRef, InvalidFont, PxScaleFont, ScaleFont};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::borrow::Cow;
use std::ops::Range;

/// Colours that people with any colour vision tell apart on white, best first (Okabe and Ito, "Color Universal Design",
/// 2008; their yellow, too pale for a line, left out).
pub const PALETTE: [(u8, u8, u8); 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (60, 60, 60),
];

/// One curve, with or without a band around it. Points that are not finite, or beyond ±1e12, are gaps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Red, green, blue; see [`PALETTE`].
    pub colour: (u8, u8, u8),
    /// Where its points are, from left to right.
    pub x: Vec<f64>,
    /// Their heights; as many.
    pub mid: Vec<f64>,
    /// The lower and the upper edge of a band; as many each.
    pub band: Option<(Vec<f64>, Vec<f64>)>,
}

/// Curves on a white card, 960 by 540 units; a legend of many rows makes it taller.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// The first line.
    pub title: String,
    /// The line under it; may be empty.
    pub subtitle: String,
    /// What the horizontal axis counts.
    pub x_label: String,
    /// What the vertical axis measures.
    pub y_label: String,
    /// The curves, in the order of the legend; later ones are drawn over earlier ones.
    pub series: Vec<Series>,
    /// Dashed horizontal lines, each with its label.
    pub marks: Vec<(f64, String)>,
    /// The vertical axis; without it, what the numbers need.
    pub y_range: Option<(f64, f64)>,
    /// Both axes by factors, and every point a dot; numbers that are not above 0 are gaps.
    pub logarithmic: bool,
}

/// Why a chart cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Columns of one series that differ in length.
    #[error("series \"{series}\" has {expected} x, but {got} values in {column}")]
    Length {
        /// The series' name.
        series: String,
        /// "mid" or "band".
        column: &'static str,
        /// How many x it has.
        expected: usize,
        /// How many the column has.
        got: usize,
    },
    /// A vertical axis that is none.
    #[error("y_range is {low} to {high}: two finite numbers are needed, the lower one first, within ±1e12")]
    Range {
        /// Its lower end.
        low: f64,
        /// Its upper end.
        high: f64,
    },
    /// The drawing library's failure.
    #[error("drawing a chart: {0}")]
    Draw(String),
}

impl Chart {
    /// The chart as an SVG document.
    pub fn svg(&self) -> Result<String, ChartError> {
        let scaled = self.scaled();
        let layout = Layout::new(&scaled)?;
        let (width, height) = layout.size();
        let mut document = String::new();
        let area = SVGBackend::with_string(&mut document, (width, height)).into_drawing_area();
        layout.draw(&Canvas { area, pixels: false })?;
        let drawn = format!("<svg width=\"{width}\" height=\"{height}\"");
        let shown = format!("<svg role=\"img\" width=\"{}\" height=\"{}\"", WIDTH, layout.height);
        Ok(document.replacen(&drawn, &shown, 1))
    }

    /// The chart as a PNG file, two pixels a unit.
    pub fn png(&self) -> Result<Vec<u8>, ChartError> {
        let scaled = self.scaled();
        let layout = Layout::new(&scaled)?;
        let (width, height) = layout.size();
        let mut fine = vec![0; (width * height * 3) as usize];
        let area = BitMapBackend::with_buffer(&mut fine, (width, height)).into_drawing_area();
        layout.draw(&Canvas { area, pixels: true })?;
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width / 2, height / 2);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&halved(&fine, width as usize)).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(file)
    }

    /// The chart with the numbers that are drawn: on axes by factors, powers of ten.
    fn scaled(&self) -> Cow<'_, Self> {
        if !self.logarithmic {
            return Cow::Borrowed(self);
        }
        let powers = |values: &[f64]| values.iter().map(|v| v.log10()).collect::<Vec<_>>();
        let mut chart = self.clone();
        for series in &mut chart.series {
            (series.x, series.mid) = (powers(&series.x), powers(&series.mid));
            series.band = series.band.take().map(|(low, high)| (powers(&low), powers(&high)));
        }
        chart.marks.iter_mut().for_each(|(value, _)| *value = value.log10());
        chart.y_range = chart.y_range.map(|(low, high)| (low.log10(), high.log10()));
        Cow::Owned(chart)
    }
}

/// Both backends draw on whole pixels: four to a unit give smooth curves, and smooth edges once a picture is halved.
const FINE: f64 = 4.0;
/// A pixel in points, the unit of fonts.
const POINT: f64 = 0.75;
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
const PLOT_HEIGHT: f64 = 372.0;
const LEGEND_ROW: f64 = 22.0;
/// From the plot's lower edge to the card's.
const FOOT: f64 = 62.0;
/// Numbers beyond it are as good as infinite in a picture.
const LIMIT: f64 = 1e12;

const FONT: &str = "Inter, system-ui, sans-serif";
const INK: RGBColor = RGBColor(28, 32, 38);
const QUIET: RGBColor = RGBColor(92, 99, 110);
const GRID: RGBColor = RGBColor(229, 232, 236);
const AXIS: RGBColor = RGBColor(150, 156, 166);

/// What is drawn on.
struct Canvas<B: DrawingBackend> {
    area: DrawingArea<B, Shift>,
    /// Whether lines and letters become pixels here, or are left to the viewer.
    pixels: bool,
}

/// Where everything goes, in units.
struct Layout<'a> {
    chart: &'a Chart,
    height: f64,
    legend: Vec<(f64, f64)>,
    plot: (Range<f64>, Range<f64>),
    x: Axis,
    y: Axis,
}

struct Axis {
    range: Range<f64>,
    ticks: Vec<(f64, String)>,
}

#[derive(Clone, Copy)]
struct Type {
    size: f64,
    bold: bool,
    colour: RGBColor,
}

const TITLE: Type = Type { size: 21.0, bold: true, colour: INK };
const SUBTITLE: Type = Type { size: 13.5, bold: false, colour: QUIET };
const LEGEND: Type = Type { size: 13.5, bold: false, colour: INK };
const LABEL: Type = Type { size: 12.5, bold: false, colour: QUIET };

impl<'a> Layout<'a> {
    fn new(chart: &'a Chart) -> Result<Self, ChartError> {
        chart.series.iter().try_for_each(check)?;
        let (x, y) = match chart.logarithmic {
            true => (Axis::of_points(chart), Axis::by_factors(y_range(chart)?)),
            false => (Axis::new(x_range(chart), 8.0), Axis::new(y_range(chart)?, 6.0)),
        };
        let left = MARGIN + widest(&y.ticks)? + 10.0;
        let marks = widest(&chart.marks)?.min(WIDTH / 4.0);
        let right = WIDTH - MARGIN - if marks > 0.0 { marks + 8.0 } else { 14.0 };
        let head = if chart.subtitle.is_empty() { 66.0 } else { 92.0 };
        let (legend, rows) = legend(&chart.series, head)?;
        let top = head + LEGEND_ROW * rows as f64 + 28.0;
        let plot = (left..right, top..top + PLOT_HEIGHT);
        Ok(Self { chart, height: (top + PLOT_HEIGHT + FOOT).round(), legend, plot, x, y })
    }

    fn size(&self) -> (u32, u32) {
        ((WIDTH * FINE) as u32, (self.height * FINE) as u32)
    }

    fn draw<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Result<(), ChartError> {
        canvas.area.fill(&WHITE).map_err(failed)?;
        self.head(canvas)?;
        self.grid(canvas)?;
        self.marks(canvas)?;
        for series in &self.chart.series {
            self.band(canvas, series)?;
        }
        for series in &self.chart.series {
            self.curve(canvas, series)?;
        }
        canvas.area.present().map_err(failed)
    }

    fn head<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Result<(), ChartError> {
        let Chart { title, subtitle, series, .. } = self.chart;
        let room = WIDTH - 2.0 * MARGIN;
        canvas.write(TITLE, title, (MARGIN, 34.0), HPos::Left, room)?;
        canvas.write(SUBTITLE, subtitle, (MARGIN, 60.0), HPos::Left, room)?;
        for (series, (x, y)) in series.iter().zip(&self.legend) {
            let swatch = [(*x, *y), (x + SWATCH, *y)];
            canvas.line(&swatch, rgb(series.colour), 3.5)?;
            canvas.write(LEGEND, &series.name, (x + SWATCH + 8.0, *y), HPos::Left, room - SWATCH - 8.0)?;
        }
        Ok(())
    }

    fn grid<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Result<(), ChartError> {
        let Chart { x_label, y_label, .. } = self.chart;
        let (across, down) = &self.plot;
        for (value, label) in &self.y.ticks {
            let y = self.y(*value);
            canvas.line(&[(across.start, y), (across.end, y)], GRID, 1.0)?;
            canvas.write(LABEL, label, (across.start - 10.0, y), HPos::Right, WIDTH)?;
        }
        for (value, label) in &self.x.ticks {
            let x = self.x(*value);
            canvas.line(&[(x, down.end), (x, down.end + 5.0)], AXIS, 1.0)?;
            canvas.write(LABEL, label, (x, down.end + 17.0), HPos::Center, WIDTH)?;
        }
        canvas.line(&[(across.start, down.end), (across.end, down.end)], AXIS, 1.25)?;
        let middle = (across.start + across.end) / 2.0;
        canvas.write(LABEL, x_label, (middle, down.end + 42.0), HPos::Center, across.end - across.start)?;
        canvas.write(LABEL, y_label, (MARGIN, down.start - 18.0), HPos::Left, across.end - MARGIN)?;
        let empty = self.chart.series.iter().all(|s| runs(&s.x, &s.mid).is_empty());
        let centre = (middle, (down.start + down.end) / 2.0);
        if empty { canvas.write(SUBTITLE, "no data yet", centre, HPos::Center, WIDTH) } else { Ok(()) }
    }

    fn marks<B: DrawingBackend>(&self, canvas: &Canvas<B>) -> Result<(), ChartError> {
        let (across, _) = &self.plot;
        let within = |(value, _): &&(f64, String)| self.y.range.start <= *value && *value <= self.y.range.end;
        let mut marks = self.chart.marks.iter().filter(within).collect::<Vec<_>>();
        marks.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut free = f64::NEG_INFINITY;
        for (value, label) in marks {
            let y = self.y(*value);
            let mut x = across.start;
            while x < across.end {
                canvas.line(&[(x, y), ((x + 6.0).min(across.end), y)], QUIET, 1.25)?;
                x += 11.0;
            }
            let beside = y.max(free);
            canvas.write(LABEL, label, (across.end + 8.0, beside), HPos::Left, WIDTH / 4.0)?;
            free = beside + LABEL.size + 3.0;
        }
        Ok(())
    }

    fn band<B: DrawingBackend>(&self, canvas: &Canvas<B>, series: &Series) -> Result<(), ChartError> {
        let Some((low, high)) = &series.band else { return Ok(()) };
        let edge = |values: &[f64], at: Range<usize>| {
            let points = at.map(|i| (self.x(series.x[i]), self.y(values[i])));
            thinned(points)
        };
        // A gap in either edge is a gap in the band.
        let both = low.iter().zip(high).map(|(l, h)| if usable(*l) { *h } else { *l }).collect::<Vec<_>>();
        for run in runs(&series.x, &both) {
            let mut outline = edge(high, run.clone());
            outline.extend(edge(low, run).into_iter().rev());
            let outline = outline.into_iter().map(fine).collect::<Vec<_>>();
            canvas
                .area
                .draw(&Polygon::new(outline, rgb(series.colour).mix(0.15).filled()))
                .map_err(failed)?;
        }
        Ok(())
    }

    fn curve<B: DrawingBackend>(&self, canvas: &Canvas<B>, series: &Series) -> Result<(), ChartError> {
        let colour = rgb(series.colour);
        for run in runs(&series.x, &series.mid) {
            let points = thinned(run.map(|i| (self.x(series.x[i]), self.y(series.mid[i]))));
            match points[..] {
                [point] => canvas.dot(point, colour, 3.5)?,
                _ => canvas.line(&points, colour, 2.25)?,
            }
            if self.chart.logarithmic {
                points.iter().try_for_each(|point| canvas.dot(*point, colour, 3.5))?;
            }
        }
        Ok(())
    }

    fn x(&self, value: f64) -> f64 {
        place(value, &self.x.range, &self.plot.0)
    }

    fn y(&self, value: f64) -> f64 {
        place(value, &self.y.range, &(self.plot.1.end..self.plot.1.start))
    }
}

impl Axis {
    /// About `wanted` ticks at round numbers; the range is at least a millionth of its numbers wide.
    fn new(range: Range<f64>, wanted: f64) -> Self {
        let rough = (range.end - range.start) / wanted;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        let digits = (-step.log10() - 1e-9).ceil().max(0.0) as usize;
        let (first, last) =
            ((range.start / step - 1e-9).ceil() as i64, (range.end / step + 1e-9).floor() as i64);
        let ticks = (first..=last).map(|i| (i as f64 * step, number(i as f64 * step, digits))).collect();
        Self { range, ticks }
    }

    /// Powers of ten, with their doubles and fives where there is room for them.
    fn by_factors(range: Range<f64>) -> Self {
        let steps = if range.end - range.start > 3.0 { &[1.0][..] } else { &[1.0, 2.0, 5.0] };
        let powers = range.start.floor() as i32..=range.end.ceil() as i32;
        let sparse = ((range.end - range.start) / 12.0).ceil().max(1.0) as usize;
        let all =
            powers.step_by(sparse).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        let within = all.filter(|value| range.contains(&value.log10()));
        let ticks = within.map(|value| (value.log10(), factor(value))).collect();
        Self { range, ticks }
    }

    /// The points themselves, of the first curve; by factors where they are too many to be read.
    fn of_points(chart: &Chart) -> Self {
        let extent = wide(extent(chart.series.iter().flat_map(|s| s.x.iter().copied())).unwrap_or(0.0..1.0));
        let pad = 0.03 * (extent.end - extent.start);
        let range = extent.start - pad..extent.end + pad;
        let points = chart.series.first().map_or(&[][..], |s| &s.x);
        match points.len() {
            1..=12 => {
                let near = points.iter().filter(|x| range.contains(*x));
                Self { ticks: near.map(|x| (*x, factor(10f64.powf(*x)))).collect(), range }
            }
            _ => Self::by_factors(range),
        }
    }
}

impl Type {
    /// The font at this size, in fine pixels.
    fn font(&self) -> Result<PxScaleFont<FontRef<'static>>, ChartError> {
        let bytes: &'static [u8] = match self.bold {
            true => include_bytes!("../assets/Inter-SemiBold.ttf"),
            false => include_bytes!("../assets/Inter-Regular.ttf"),
        };
        let font = FontRef::try_from_slice(bytes).map_err(|e: InvalidFont| failed(e))?;
        let scale = font.pt_to_px_scale((self.size * FINE * POINT) as f32);
        Ok(font.into_scaled(scale.ok_or_else(|| failed("the font has no scale"))?))
    }

    fn width(&self, text: &str) -> Result<f64, ChartError> {
        let font = self.font()?;
        Ok(text.chars().map(|c| f64::from(font.h_advance(font.glyph_id(c)))).sum::<f64>() / FINE)
    }

    /// The text, or what of it has room before an ellipsis.
    fn fitting(&self, text: &str, room: f64) -> Result<String, ChartError> {
        let mut text =
            text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect::<String>();
        if self.width(&text)? <= room {
            return Ok(text);
        }
        while self.width(&text)? + self.width("…")? > room && text.pop().is_some() {}
        text.truncate(text.trim_end().len());
        Ok(text + "…")
    }
}

impl<B: DrawingBackend> Canvas<B> {
    /// A polyline with round joints.
    fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: f64) -> Result<(), ChartError> {
        let style = colour.stroke_width((width * FINE) as u32);
        if !self.pixels {
            let points = points.iter().copied().map(fine).collect::<Vec<_>>();
            return self.area.draw(&PathElement::new(points, style)).map_err(failed);
        }
        // The library mitres joints of pixels without a limit, and sharp turns become spikes: each piece on its own.
        for piece in points.windows(2) {
            self.area.draw(&PathElement::new([fine(piece[0]), fine(piece[1])], style)).map_err(failed)?;
        }
        let joints = points.get(1..points.len().saturating_sub(1)).unwrap_or_default();
        joints.iter().try_for_each(|joint| self.dot(*joint, colour, width / 2.0))
    }

    fn dot(&self, at: (f64, f64), colour: RGBColor, radius: f64) -> Result<(), ChartError> {
        self.area.draw(&Circle::new(fine(at), (radius * FINE) as i32, colour.filled())).map_err(failed)
    }

    /// Writes with the capitals' middle at a height; what exceeds the room gives way to an ellipsis.
    fn write(
        &self,
        style: Type,
        text: &str,
        at: (f64, f64),
        side: HPos,
        room: f64,
    ) -> Result<(), ChartError> {
        let text = style.fitting(text, room)?;
        if self.pixels {
            return self.letters(style, &text, at, side);
        }
        let weight = if style.bold { FontStyle::Bold } else { FontStyle::Normal };
        // The library writes sizes divided by this number, and puts the middle of small letters at the height.
        let font =
            FontDesc::new(FontFamily::Name(FONT), style.size * FINE * 1.24, weight).color(&style.colour);
        let at = fine((at.0, at.1 + 0.09 * style.size));
        self.area.draw(&Text::new(text, at, font.pos(Pos::new(side, VPos::Center)))).map_err(failed)
    }

    /// The library's own letters ignore the space before each.
    fn letters(&self, style: Type, text: &str, at: (f64, f64), side: HPos) -> Result<(), ChartError> {
        let font = style.font()?;
        let start = match side {
            HPos::Left => 0.0,
            HPos::Center => style.width(text)? / 2.0,
            HPos::Right => style.width(text)?,
        };
        let mut pen = ((at.0 - start) * FINE) as f32;
        let baseline = ((at.1 + 0.365 * style.size) * FINE) as f32;
        for c in text.chars() {
            let mut glyph = font.scaled_glyph(c);
            glyph.position = ab_glyph::point(pen, baseline);
            pen += font.h_advance(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            let mut result = Ok(());
            outline.draw(|x, y, cover| {
                let pixel = (corner.x as i32 + x as i32, corner.y as i32 + y as i32);
                if let Err(e) = self.area.draw_pixel(pixel, &style.colour.mix(f64::from(cover))) {
                    result = Err(failed(e));
                }
            });
            result?;
        }
        Ok(())
    }
}

const SWATCH: f64 = 22.0;

/// Where each entry begins, and how many rows they take. Some room is left for viewers with a wider font.
fn legend(series: &[Series], head: f64) -> Result<(Vec<(f64, f64)>, usize), ChartError> {
    let (mut x, mut row) = (MARGIN, 0);
    let mut places = Vec::new();
    for s in series {
        let width = SWATCH + 8.0 + LEGEND.width(&s.name)? * 1.05;
        if x > MARGIN && x + width > WIDTH - MARGIN {
            (x, row) = (MARGIN, row + 1);
        }
        places.push((x, head + LEGEND_ROW * row as f64));
        x += width + 24.0;
    }
    let rows = if places.is_empty() { 0 } else { row + 1 };
    Ok((places, rows))
}

fn widest(labels: &[(f64, String)]) -> Result<f64, ChartError> {
    labels.iter().try_fold(0.0, |widest: f64, (_, label)| Ok(widest.max(LABEL.width(label)?)))
}

fn check(series: &Series) -> Result<(), ChartError> {
    let expected = series.x.len();
    let same = |column, got| match got == expected {
        true => Ok(()),
        false => Err(ChartError::Length { series: series.name.clone(), column, expected, got }),
    };
    same("mid", series.mid.len())?;
    let (low, high) =
        series.band.as_ref().map_or((expected, expected), |(low, high)| (low.len(), high.len()));
    same("band", low)?;
    same("band", high)
}

fn usable(value: f64) -> bool {
    value.abs() <= LIMIT
}

/// Lowest and highest usable number.
fn extent(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    values.filter(|v| usable(*v)).fold(None, |extent, v| match extent {
        None => Some(v..v),
        Some(e) => Some(e.start.min(v)..e.end.max(v)),
    })
}

/// From 0 where all is positive; wide enough to have ticks.
fn x_range(chart: &Chart) -> Range<f64> {
    let extent = extent(chart.series.iter().flat_map(|s| s.x.iter().copied())).unwrap_or(0.0..1.0);
    wide(extent.start.min(0.0)..extent.end)
}

/// A little more than the numbers and marks need, from 0 where they come near to it.
fn y_range(chart: &Chart) -> Result<Range<f64>, ChartError> {
    if let Some((low, high)) = chart.y_range {
        let valid = usable(low) && usable(high) && low < high;
        return if valid { Ok(wide(low..high)) } else { Err(ChartError::Range { low, high }) };
    }
    let bands =
        chart.series.iter().filter_map(|s| s.band.as_ref()).flat_map(|(low, high)| low.iter().chain(high));
    let curves = chart.series.iter().flat_map(|s| &s.mid);
    let values = curves.chain(bands).copied().chain(chart.marks.iter().map(|(v, _)| *v));
    let extent = wide(extent(values).unwrap_or(0.0..1.0));
    let pad = 0.03 * (extent.end - extent.start);
    let from_zero = !chart.logarithmic && extent.start >= 0.0 && extent.start < 0.4 * extent.end;
    Ok(if from_zero { 0.0 } else { extent.start - pad }..extent.end + pad)
}

/// The range, widened where it is too narrow for its numbers to tell its ends apart.
fn wide(range: Range<f64>) -> Range<f64> {
    let size = range.start.abs().max(range.end.abs());
    if range.end - range.start > (size * 1e-6).max(1e-9) {
        return range;
    }
    let half = if size < 1e-9 { 0.5 } else { size * 0.1 };
    range.start - half..range.end + half
}

/// Where a value of one range is in another; values outside are at its ends.
fn place(value: f64, from: &Range<f64>, to: &Range<f64>) -> f64 {
    let share = ((value - from.start) / (from.end - from.start)).clamp(0.0, 1.0);
    to.start + share * (to.end - to.start)
}

/// Stretches of points without a gap.
fn runs(x: &[f64], y: &[f64]) -> Vec<Range<usize>> {
    let mut runs = Vec::<Range<usize>>::new();
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        if !(usable(*x) && usable(*y)) {
            continue;
        }
        match runs.last_mut().filter(|r| r.end == i) {
            Some(run) => run.end += 1,
            None => runs.push(i..i + 1),
        }
    }
    runs
}

/// The points that show: of those within half a unit across, the first, the lowest, the highest and the last. A file's
/// size is bounded by the picture's, not by the run's.
fn thinned(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let column = |x: f64| (x * 2.0).floor();
    let mut kept = Vec::<(f64, f64)>::new();
    let mut bucket = Vec::<(f64, f64)>::new();
    let flush = |bucket: &mut Vec<(f64, f64)>, kept: &mut Vec<(f64, f64)>| {
        let by = |pick: fn(f64, f64) -> bool| {
            let far = |a: usize, b: usize| if pick(bucket[b].1, bucket[a].1) { b } else { a };
            (0..bucket.len()).reduce(far)
        };
        let mut chosen = vec![0, bucket.len().saturating_sub(1)];
        chosen.extend(by(|a, b| a < b).into_iter().chain(by(|a, b| a > b)));
        chosen.sort_unstable();
        chosen.dedup();
        kept.extend(chosen.into_iter().filter_map(|i| bucket.get(i)));
        bucket.clear();
    };
    for point in points {
        if bucket.first().is_some_and(|first| column(first.0) != column(point.0)) {
            flush(&mut bucket, &mut kept);
        }
        bucket.push(point);
    }
    flush(&mut bucket, &mut kept);
    kept
}

/// A number with separated thousands and so many digits after the point.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let whole = text.find('.').unwrap_or(text.len());
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        out.push('−');
    }
    for (i, c) in text.chars().enumerate() {
        if i > 0 && i < whole && (whole - i) % 3 == 0 {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number on an axis by factors.
fn factor(value: f64) -> String {
    match value {
        1e-6..=LIMIT => number(value, (-value.log10() - 1e-9).ceil().max(0.0) as usize),
        _ => format!("{:.0e}", value.min(f64::MAX)),
    }
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn rgb((r, g, b): (u8, u8, u8)) -> RGBColor {
    RGBColor(r, g, b)
}

/// Half the width and half the height: each pixel the mean of four.
fn halved(fine: &[u8], width: usize) -> Vec<u8> {
    let row = width * 3;
    let at = |y: usize, x: usize, channel: usize| u32::from(fine[y * row + x * 3 + channel]);
    let mut out = Vec::with_capacity(fine.len() / 4);
    for y in (0..fine.len() / row).step_by(2) {
        for x in (0..width).step_by(2) {
            out.extend((0..3).map(|c| {
                ((at(y, x, c) + at(y, x + 1, c) + at(y + 1, x, c) + at(y + 1, x + 1, c) + 2) / 4) as u8
            }));
        }
    }
    out
}

fn failed(e: impl std::fmt::Display) -> ChartError {
    ChartError::Draw(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(x: Vec<f64>, mid: Vec<f64>) -> Series {
        Series { name: "one".into(), colour: PALETTE[0], x, mid, band: None }
    }

    fn chart(series: Vec<Series>) -> Chart {
        Chart { title: "T".into(), series, ..Chart::default() }
    }

    fn decoded(file: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        (frame.width, frame.height, pixels)
    }

    #[test]
    fn a_curve_its_band_and_a_mark_are_in_both_pictures() {
        let mut taught = series(vec![0.0, 500.0, 12_000.0], vec![9.0, 480.0, 500.0]);
        taught.band = Some((vec![9.0, 300.0, 490.0], vec![20.0, 500.0, 500.0]));
        let chart = Chart {
            title: "A < B & C".into(),
            x_label: "steps".into(),
            marks: vec![(475.0, "solved".into())],
            ..chart(vec![taught])
        };
        let svg = chart.svg().unwrap();
        assert!(svg.starts_with("<svg role=\"img\" width=\"960\"") && svg.trim_end().ends_with("</svg>"));
        for text in ["A &lt; B &amp; C", "solved", "10,000", "#0072B2", "<polygon"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        let (width, height, pixels) = decoded(&chart.png().unwrap());
        assert_eq!((width, height % 2), (1920, 0));
        let solid = pixels.chunks_exact(3).filter(|p| *p == [0, 114, 178]).count();
        assert!(solid > 2_000, "{solid} pixels of the curve");
    }

    #[test]
    fn whatever_the_numbers_are_a_chart_comes_out() {
        let odd =
            [f64::NAN, f64::INFINITY, -f64::INFINITY, f64::MAX, 5e-324, -0.0, 1e12, -1e12, 1e12 + 1e-3, 3.0];
        let mut charts = vec![chart(vec![]), chart(vec![series(vec![], vec![])])];
        for a in odd {
            charts.push(chart(vec![series(vec![a], vec![1.0])]));
            charts.push(Chart { marks: vec![(a, "mark".into())], ..chart(vec![]) });
            for b in odd {
                let mut s = series(vec![a, b, 1.0], vec![b, a, f64::NAN]);
                s.band = Some((vec![a, a, b], vec![b, a, a]));
                charts.push(chart(vec![s]));
            }
        }
        for c in &charts {
            let svg = c.svg().unwrap();
            assert!(svg.len() < 100_000 && !svg.contains("NaN") && !svg.contains("inf"));
        }
        for c in charts.iter().step_by(40) {
            c.png().unwrap();
        }
        for c in charts {
            let svg = Chart { logarithmic: true, ..c }.svg().unwrap();
            assert!(svg.len() < 100_000 && !svg.contains("NaN") && !svg.contains("inf"));
        }
    }

    #[test]
    fn misfits_are_named() {
        let e = chart(vec![series(vec![1.0, 2.0], vec![1.0])]).svg().unwrap_err();
        assert_eq!(e.to_string(), "series \"one\" has 2 x, but 1 values in mid");
        let mut s = series(vec![1.0], vec![1.0]);
        s.band = Some((vec![1.0], vec![]));
        assert!(matches!(chart(vec![s]).png(), Err(ChartError::Length { column: "band", got: 0, .. })));
        for range in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY)] {
            let c = Chart { y_range: Some(range), ..chart(vec![]) };
            assert!(matches!(c.svg(), Err(ChartError::Range { .. })), "{range:?}");
        }
    }

    #[test]
    fn a_gap_splits_a_curve_and_a_lone_point_is_a_dot() {
        let s = series(vec![0.0, 1.0, 2.0, 3.0, 4.0], vec![1.0, 2.0, f64::NAN, 2.0, f64::NAN]);
        assert_eq!(runs(&s.x, &s.mid), [0..2, 3..4]);
        assert_eq!(chart(vec![s]).svg().unwrap().matches("<circle").count(), 1);
    }

    #[test]
    fn long_runs_keep_their_extremes_and_a_small_file() {
        let mid =
            (0..200_000).map(|i| if i == 77_777 { 900.0 } else { f64::from(i % 10) }).collect::<Vec<_>>();
        let points = thinned(mid.iter().enumerate().map(|(i, y)| (i as f64 * 0.004, *y)));
        assert!(points.len() <= 4 * 1_601 && points.iter().any(|p| p.1 == 900.0));
        let x = (0..mid.len()).map(|i| i as f64).collect();
        assert!(chart(vec![series(x, mid)]).svg().unwrap().len() < 200_000);
    }

    #[test]
    fn long_texts_are_cut_and_many_series_get_more_rows() {
        let long = "word ".repeat(10_000) + "\u{1}\n";
        let mut many = (0..30).map(|_| series(vec![1.0], vec![1.0])).collect::<Vec<_>>();
        let few = Layout::new(&chart(many.clone())).unwrap().height;
        many.iter_mut().for_each(|s| s.name = long.clone());
        let c = Chart { title: long, marks: vec![(1.0, "mark ".repeat(1_000))], ..chart(many) };
        let layout = Layout::new(&c).unwrap();
        assert_eq!(layout.legend.len(), 30);
        assert!(layout.height > few);
        let svg = c.svg().unwrap();
        assert!(svg.contains('…') && svg.len() < 100_000 && !svg.contains('\u{1}'));
    }

    #[test]
    fn numbers_have_separators() {
        let shown = [(0.0, 0), (50_000.0, 0), (-1_234_567.25, 2), (999.0, 0), (-0.001, 1), (0.25, 2)];
        let texts = shown.map(|(value, digits)| number(value, digits));
        assert_eq!(texts, ["0", "50,000", "−1,234,567.25", "999", "0.0", "0.25"]);
    }

    #[test]
    fn axes_by_factors_tell_their_points_and_round_numbers() {
        let points = series(vec![32.0, 64.0, 512.0], vec![90.0, 200.0, 9_000.0]);
        let chart = Chart { logarithmic: true, ..chart(vec![points]) };
        let scaled = chart.scaled();
        let layout = Layout::new(&scaled).unwrap();
        let labels = |axis: &Axis| axis.ticks.iter().map(|t| t.1.clone()).collect::<Vec<_>>();
        assert_eq!(labels(&layout.x), ["32", "64", "512"]);
        assert_eq!(labels(&layout.y), ["100", "200", "500", "1,000", "2,000", "5,000", "10,000"]);
        // A doubling is as wide everywhere.
        let place = |value: f64| layout.x(value.log10());
        assert!((place(128.0) - place(64.0) - (place(64.0) - place(32.0))).abs() < 1e-9);
        assert_eq!(chart.svg().unwrap().matches("<circle").count(), 3);
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let labels =
            |range, wanted| Axis::new(range, wanted).ticks.into_iter().map(|t| t.1).collect::<Vec<_>>();
        assert_eq!(labels(0.0..500.0, 6.0), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(labels(-0.3..0.3, 6.0), ["−0.3", "−0.2", "−0.1", "0.0", "0.1", "0.2", "0.3"]);
    }
}
