//! What a GEOMETRY column holds: one kind of shape, kept as its well-known text.

use serde::{Deserialize, Serialize};

/// A kind of shape of OGC Simple Feature Access (06-103r4, 6.1), in the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// One place.
    Point,
    /// Places that lines join.
    LineString,
    /// An area with its holes.
    Polygon,
    /// Places.
    MultiPoint,
    /// Lines.
    MultiLineString,
    /// Areas.
    MultiPolygon,
    /// Shapes of any kinds.
    GeometryCollection,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Point,
        Self::LineString,
        Self::Polygon,
        Self::MultiPoint,
        Self::MultiLineString,
        Self::MultiPolygon,
        Self::GeometryCollection,
    ];

    /// Returns the name that well-known text and SQL give it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Point => "POINT",
            Self::LineString => "LINESTRING",
            Self::Polygon => "POLYGON",
            Self::MultiPoint => "MULTIPOINT",
            Self::MultiLineString => "MULTILINESTRING",
            Self::MultiPolygon => "MULTIPOLYGON",
            Self::GeometryCollection => "GEOMETRYCOLLECTION",
        }
    }

    /// Returns the shape of a name in any letters.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|shape| shape.name().eq_ignore_ascii_case(name))
    }
}
