//! The curves as SVG.

use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use super::report::Curve;
use crate::Failure;

/// One picture.
struct Plot {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    /// Whether the x axis counts in powers of ten.
    is_log: bool,
}

const PLOTS: [Plot; 6] = [
    Plot {
        name: "sustained",
        title: "60 s at full tilt, MySQL keeping up",
        x: "second",
        y: "orders/s",
        is_log: false,
    },
    Plot {
        name: "lag",
        title: "Lag in those 60 s",
        x: "second",
        y: "seconds behind",
        is_log: false,
    },
    Plot {
        name: "latency",
        title: "Open-loop latency",
        x: "share of peak, %",
        y: "ms",
        is_log: false,
    },
    Plot {
        name: "products",
        title: "Products in the catalog",
        x: "products",
        y: "orders/s",
        is_log: true,
    },
    Plot {
        name: "connections",
        title: "Connections",
        x: "connections",
        y: "orders/s",
        is_log: true,
    },
    Plot {
        name: "lines",
        title: "Lines of an order",
        x: "lines",
        y: "lines/s",
        is_log: true,
    },
];

/// Draws each plot for which there are curves; returns names and titles.
///
/// # Errors
/// When a file cannot be written.
pub fn draw(curves: &[Curve], folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut drawn = Vec::new();
    for plot in &PLOTS {
        let own: Vec<&Curve> = curves.iter().filter(|c| c.plot == plot.name).collect();
        if own.is_empty() {
            continue;
        }
        let file = folder.join(format!("{}.svg", plot.name));
        let area = SVGBackend::new(&file, (720, 360)).into_drawing_area();
        let points = || own.iter().flat_map(|curve| curve.points.iter());
        let x_max = points().map(|p| p.0).fold(1.0, f64::max);
        let y_max = points().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max) * 1.1;
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area);
        chart
            .caption(plot.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(72);
        if plot.is_log {
            let x_min = points().map(|p| p.0).fold(x_max, f64::min);
            let axes = chart.build_cartesian_2d((x_min..x_max).log_scale(), 0.0..y_max)?;
            lines(axes, plot, &own)?;
        } else {
            let axes = chart.build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
            lines(axes, plot, &own)?;
        }
        area.present()?;
        drop(area);
        drawn.push((plot.name.to_owned(), plot.title.to_owned()));
    }
    Ok(drawn)
}

type Area<'a, X> =
    ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>;

fn lines<X>(mut chart: Area<'_, X>, plot: &Plot, curves: &[&Curve]) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(plot.x)
        .y_desc(plot.y)
        .light_line_style(WHITE)
        .draw()
        .map_err(|error| error.to_string())?;
    for (number, curve) in curves.iter().enumerate() {
        let color = Palette99::pick(number).stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve.points.iter().copied(), color))
            .map_err(|error| error.to_string())?
            .label(curve.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|error| error.to_string())?;
    Ok(())
}
