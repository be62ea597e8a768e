//! Plots as SVG: lines over a few positions, and stacked bars.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 320.0;

/// Colours that readers with red-green colour blindness can distinguish.
pub(crate) const COLOURS: [&str; 4] = ["#6b6b6b", "#0072b2", "#009e73", "#d55e00"];

/// A line.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Index of its colour.
    pub(crate) colour: usize,
    pub(crate) dashed: bool,
    /// One value per position; NaN for a missing one.
    pub(crate) values: Vec<f64>,
}

/// Title, axes and positions of a plot.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// The positions, evenly spaced.
    pub(crate) places: Vec<String>,
}

/// Draws lines over positions, with a logarithmic scale of values.
pub(crate) fn lines(frame: &Frame<'_>, series: &[Series]) -> String {
    let values = series.iter().flat_map(|one| &one.values).copied().filter(|value| *value > 0.0);
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return String::new();
    }
    // Steps of 1, 2, 5 around all values.
    let ticks = ticks(low, high);
    let (low, high) = (ticks[0].ln(), ticks[ticks.len() - 1].ln());
    let y_of = |value: f64| BOTTOM - (value.ln() - low) / (high - low) * (BOTTOM - TOP);
    let mut svg = begin(frame);
    for &tick in &ticks {
        grid(&mut svg, y_of(tick), &trimmed(&format!("{tick:.4}")));
    }
    let count = frame.places.len();
    let x_of = |at: usize| {
        let step = (RIGHT - LEFT - 60.0) / crate::stats::float(count.max(2) - 1);
        LEFT + 30.0 + step * crate::stats::float(at)
    };
    for (at, place) in frame.places.iter().enumerate() {
        text(&mut svg, (x_of(at), BOTTOM + 18.0), "middle", place);
    }
    let mut names = Vec::new();
    for one in series {
        let points: Vec<(f64, f64)> = one
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| **value > 0.0)
            .map(|(at, value)| (x_of(at), y_of(*value)))
            .collect();
        let Some(&(_, last)) = points.last() else { continue };
        let colour = COLOURS[one.colour % COLOURS.len()];
        let dashes = if one.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(
            &mut svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes} points=\"{}\"/>",
                path.join(" ")
            ),
        );
        for (x, y) in points {
            put(&mut svg, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        names.push((last, colour, one.name.as_str()));
    }
    // Labels at the ends of the lines, moved apart if they overlap.
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free = TOP;
    for (y, colour, name) in names {
        let y = y.max(free);
        free = y + 15.0;
        put(
            &mut svg,
            format_args!("<text x=\"{}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>", RIGHT - 18.0, y + 4.0),
        );
    }
    svg + "</svg>\n"
}

/// A bar of parts.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// Values of the parts, in the order of their names.
    pub(crate) parts: Vec<f64>,
}

/// Draws stacked bars; the positions of the frame are the names of the parts.
pub(crate) fn bars(frame: &Frame<'_>, bars: &[Bar]) -> String {
    let sum = |bar: &Bar| bar.parts.iter().filter(|part| part.is_finite()).sum::<f64>();
    let high = bars.iter().map(sum).fold(0.0, f64::max) * 1.1;
    if high <= 0.0 {
        return String::new();
    }
    let mut svg = begin(&Frame { places: Vec::new(), ..*frame });
    let width = (RIGHT - LEFT) / crate::stats::float(bars.len().max(1));
    for (at, bar) in bars.iter().enumerate() {
        let x = LEFT + width * crate::stats::float(at) + width * 0.2;
        let mut y = BOTTOM;
        for (part, value) in bar.parts.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let height = value / high * (BOTTOM - TOP);
            y -= height;
            put(
                &mut svg,
                format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{}\"/>",
                    width * 0.6,
                    COLOURS[(part + 1) % COLOURS.len()]
                ),
            );
        }
        text(&mut svg, (x + width * 0.3, y - 6.0), "middle", &number(sum(bar)));
        text(&mut svg, (x + width * 0.3, BOTTOM + 18.0), "middle", &bar.name);
    }
    for (part, name) in frame.places.iter().enumerate() {
        let y = TOP + 20.0 * crate::stats::float(part);
        let colour = COLOURS[(part + 1) % COLOURS.len()];
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
                RIGHT + 10.0,
                y
            ),
        );
        text(&mut svg, (RIGHT + 28.0, y + 11.0), "start", name);
    }
    svg + "</svg>\n"
}

fn begin(frame: &Frame<'_>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#333\" role=\"img\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\" font-weight=\"600\">{title}</text>\n",
        title = frame.title
    );
    text(&mut svg, (f64::midpoint(LEFT, RIGHT), HEIGHT - 18.0), "middle", frame.x);
    put(
        &mut svg,
        format_args!(
            "<text transform=\"translate(18 {:.0}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(TOP, BOTTOM),
            frame.y
        ),
    );
    put(&mut svg, format_args!("<path d=\"M{LEFT} {BOTTOM}H{RIGHT}\" stroke=\"#333\" fill=\"none\"/>"));
    svg
}

fn grid(svg: &mut String, y: f64, label: &str) {
    put(svg, format_args!("<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/>", RIGHT - 24.0));
    text(svg, (LEFT - 8.0, y + 4.0), "end", label);
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, label: &str) {
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{label}</text>"));
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = writeln!(svg, "{text}");
}

/// Returns 1, 2, 5, 10, … around the values.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let mut decade = 10f64.powf(low.log10().floor());
    let mut ticks = Vec::new();
    while ticks.last().is_none_or(|last| *last < high) {
        ticks.extend([1.0, 2.0, 5.0].map(|step| step * decade));
        decade *= 10.0;
    }
    let first = ticks.iter().rposition(|tick| *tick <= low).unwrap_or(0);
    let last = ticks.iter().position(|tick| *tick >= high).unwrap_or(ticks.len() - 1);
    ticks[first..=last.max(first + 1)].to_vec()
}

/// Formats a number with three significant digits.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.995 => trimmed(&format!("{value:.2}")),
        _ => trimmed(&format!("{value:.3}")),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::{number, ticks};

    #[test]
    fn ticks_enclose_the_values() {
        assert_eq!(ticks(3.0, 70.0), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(ticks(0.1, 0.15).len(), 2);
    }

    #[test]
    fn numbers_are_short() {
        let written: Vec<String> = [f64::NAN, 12_345.0, 123.4, 12.34, 2.0, 1.25, 0.0126].map(number).to_vec();
        assert_eq!(written, ["–", "12 k", "123", "12.3", "2", "1.25", "0.013"]);
    }
}
