//! Shapes as texts: well-known text (OGC 06-103r4, 7) read with limits, and what a column may hold.
//! Invariant: no text makes the reader's stack or memory grow beyond what its length allows.

use std::str::FromStr;

use geo::{CoordsIter, Geometry, HasDimensions, Validation};
use model::{Column, Shape};
use wkt::Wkt;
use wkt::types::Dimension;

use crate::error::{Error, Result};

/// How deep collections may stand in collections.
const DEPTH_MAX: usize = 32;
/// The longest text of a shape, in bytes.
const TEXT_BYTES_MAX: usize = 256 << 10;
/// The most parts of a shape, places and rings: each is compared with all others to know it is valid.
const PARTS_MAX: usize = 1_000;
/// Places lie within these bounds, so that no product of coordinates overflows.
const COORDINATE_MAX: f64 = 1e15;

/// Reads a text.
///
/// # Errors
/// 22P02 for what is no well-known text, 54000 for what is longer or deeper than is read.
pub(crate) fn parse(text: &str) -> Result<Wkt<f64>> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("a shape of {} bytes, at most {TEXT_BYTES_MAX} are read", text.len());
        return Err(Error::new("54000", message));
    }
    let (mut depth, mut parts, mut end) = (0usize, 0usize, None);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => {
                depth += 1;
                parts += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    end.get_or_insert(at + 1);
                }
            }
            _ => {}
        }
        if parts > PARTS_MAX {
            let message = format!("a shape has more than {PARTS_MAX} parts");
            return Err(Error::new("54000", message));
        }
        // A collection's innermost shapes have parentheses of their own, three at most.
        if depth > DEPTH_MAX + 3 {
            let message = format!("a shape is nested more than {DEPTH_MAX} deep");
            return Err(Error::new("54000", message));
        }
    }
    let invalid = |why: &str| {
        let start: String = text.chars().take(60).collect();
        Error::new("22P02", format!("invalid input syntax for type geometry: \"{start}\""))
            .hint(format!("{why}; shapes are written as well-known text: POINT(1 2)"))
    };
    // The library reads one shape and leaves what follows alone.
    let rest = match end {
        Some(end) => &text[end..],
        None => text.trim_end().rsplit(char::is_whitespace).next().unwrap_or_default(),
    };
    if !rest.trim().is_empty() && (end.is_some() || !rest.eq_ignore_ascii_case("empty")) {
        return Err(invalid("something follows the shape"));
    }
    Wkt::from_str(text).map_err(invalid)
}

/// Returns the shape that a text is of.
pub(crate) fn shape_of(wkt: &Wkt<f64>) -> Shape {
    match wkt {
        Wkt::Point(_) => Shape::Point,
        Wkt::LineString(_) => Shape::LineString,
        Wkt::Polygon(_) => Shape::Polygon,
        Wkt::MultiPoint(_) => Shape::MultiPoint,
        Wkt::MultiLineString(_) => Shape::MultiLineString,
        Wkt::MultiPolygon(_) => Shape::MultiPolygon,
        Wkt::GeometryCollection(_) => Shape::GeometryCollection,
    }
}

/// Refuses a text that a column of shapes does not hold.
pub(crate) fn check(text: &str, shape: Shape, column: &Column) -> Result<()> {
    let wkt = parse(text)?;
    let found = shape_of(&wkt);
    if found != shape {
        let message = format!(
            "geometry type ({}) does not match column \"{}\" ({})",
            found.name(),
            column.name,
            shape.name()
        );
        return Err(Error::new("22023", message));
    }
    if wkt.dimension() != Dimension::XY {
        let message = format!("column \"{}\" holds shapes of two dimensions", column.name);
        return Err(Error::new("22023", message));
    }
    planar(wkt).map(|_| ())
}

/// Returns the shape as its two first dimensions are.
///
/// # Errors
/// 22023 where it is no valid shape: a ring that crosses itself, a line of one place, a place without end.
pub(crate) fn planar(wkt: Wkt<f64>) -> Result<Geometry<f64>> {
    let invalid = |why: String| Error::new("22023", format!("invalid geometry: {why}"));
    let geometry = Geometry::try_from(wkt).map_err(|why| invalid(why.to_string()))?;
    let inside = |place: geo::Coord<f64>| {
        [place.x, place.y].iter().all(|one| (-COORDINATE_MAX..=COORDINATE_MAX).contains(one))
    };
    if !geometry.coords_iter().all(inside) {
        return Err(invalid(format!("a coordinate beyond {COORDINATE_MAX:e}")));
    }
    if has_empty_part(&geometry) {
        return Err(invalid("a part of it is empty".to_owned()));
    }
    geometry.check_validation().map_err(|why| invalid(why.to_string()))?;
    Ok(geometry)
}

/// Returns whether a shape of several has one that is empty: the library's measures are wrong then.
fn has_empty_part(geometry: &Geometry<f64>) -> bool {
    match geometry {
        Geometry::MultiLineString(lines) => lines.iter().any(HasDimensions::is_empty),
        Geometry::MultiPolygon(polygons) => polygons.iter().any(HasDimensions::is_empty),
        Geometry::GeometryCollection(shapes) => {
            shapes.iter().any(|shape| shape.is_empty() || has_empty_part(shape))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_within_their_limits() {
        let read = |text: &str| parse(text).map(|wkt| shape_of(&wkt)).map_err(|one| one.sqlstate);
        assert_eq!(read("point (1 2)"), Ok(Shape::Point));
        assert_eq!(read("POLYGON((0 0,1 0,1 1,0 0))"), Ok(Shape::Polygon));
        for wrong in ["", "POINT", "POINT(1)", "POINT(1 2", "POINT(1 2) x", "CIRCLE(1 2)", "1 2"] {
            assert_eq!(read(wrong), Err("22P02"), "{wrong}");
        }
        let nested = |depth: usize| {
            let (open, close) = ("GEOMETRYCOLLECTION(".repeat(depth), ")".repeat(depth));
            format!("{open}POINT(1 2){close}")
        };
        assert_eq!(read(&nested(DEPTH_MAX)), Ok(Shape::GeometryCollection));
        assert_eq!(read(&nested(100_000)), Err("54000"));
    }

    #[test]
    fn shapes_that_cross_themselves_are_no_shapes() {
        let valid = |text| planar(parse(text).unwrap()).is_ok();
        assert!(valid("POLYGON((0 0,2 0,2 2,0 2,0 0),(0.5 0.5,1 0.5,1 1,0.5 0.5))"));
        assert!(!valid("POLYGON((0 0,2 2,2 0,0 2,0 0))"));
        assert!(!valid("LINESTRING(1 1)"));
        assert!(!valid("MULTIPOLYGON(EMPTY,((0 0,1 0,1 1,0 0)))"));
        assert!(!valid("GEOMETRYCOLLECTION(LINESTRING EMPTY,POINT(5 5))"));
        assert!(!valid("LINESTRING(0 0,1e16 1)"));
        assert!(valid("POINT EMPTY"));
        assert!(valid("GEOMETRYCOLLECTION EMPTY"));
    }
}
