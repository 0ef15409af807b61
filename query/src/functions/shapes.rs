//! Shapes in the plane. What they are to one another is told by their DE-9IM matrix (OGC 06-103r4, 6.1.15),
//! distances and areas are Euclidean, binary forms are well-known binary (8 there). As in PostGIS, NULL
//! makes NULL, the distance of an empty shape is NULL, and what is no valid shape is an error.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, StringArray,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use geo::line_measures::{Distance, Euclidean};
use geo::relate::IntersectionMatrix;
use geo::{Area, Geometry, HasDimensions, Relate};
use geo_traits::{
    GeometryCollectionTrait, GeometryTrait, GeometryType, MultiPolygonTrait, PolygonTrait,
};
use wkb::writer::{WriteOptions, write_geometry};

use super::{no_such_call, scalar_if};
use crate::error::Error;
use crate::geometry::{parse, planar};

/// What a function is computed by; texts are well-known texts.
#[derive(Clone, Copy)]
enum Compute {
    Relation(fn(&IntersectionMatrix) -> bool),
    Measure(fn(&Geometry<f64>) -> Option<f64>),
    Distance,
    IsValid,
    ToBinary,
    FromBinary,
    Normal,
}

const FUNCTIONS: [(&str, Compute); 18] = [
    ("st_equals", Compute::Relation(IntersectionMatrix::is_equal_topo)),
    ("st_contains", Compute::Relation(IntersectionMatrix::is_contains)),
    ("st_within", Compute::Relation(IntersectionMatrix::is_within)),
    ("st_intersects", Compute::Relation(IntersectionMatrix::is_intersects)),
    ("st_disjoint", Compute::Relation(IntersectionMatrix::is_disjoint)),
    ("st_touches", Compute::Relation(IntersectionMatrix::is_touches)),
    ("st_crosses", Compute::Relation(IntersectionMatrix::is_crosses)),
    ("st_overlaps", Compute::Relation(IntersectionMatrix::is_overlaps)),
    ("st_covers", Compute::Relation(IntersectionMatrix::is_covers)),
    ("st_area", Compute::Measure(|shape| Some(shape.unsigned_area()))),
    ("st_x", Compute::Measure(|shape| place(shape).map(|point| point.x()))),
    ("st_y", Compute::Measure(|shape| place(shape).map(|point| point.y()))),
    ("st_distance", Compute::Distance),
    ("st_isvalid", Compute::IsValid),
    ("st_asbinary", Compute::ToBinary),
    ("st_geomfromwkb", Compute::FromBinary),
    ("st_geomfromtext", Compute::Normal),
    ("st_astext", Compute::Normal),
];

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let make = |at| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(OfShapes { at, signature }))
    };
    (0..FUNCTIONS.len()).map(make).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfShapes {
    /// Which of [`FUNCTIONS`].
    at: usize,
    signature: Signature,
}

impl OfShapes {
    fn compute(&self) -> Compute {
        FUNCTIONS[self.at].1
    }
}

impl ScalarUDFImpl for OfShapes {
    fn name(&self) -> &'static str {
        FUNCTIONS[self.at].0
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let text = |one: &DataType| one.is_string() || *one == DataType::Null;
        match (self.compute(), found) {
            (Compute::Relation(_) | Compute::Distance, [left, right])
                if text(left) && text(right) =>
            {
                Ok(vec![DataType::Utf8; 2])
            }
            (Compute::Relation(_) | Compute::Distance, _) => {
                no_such_call(self.name(), found, "(geometry, geometry)")
            }
            (Compute::FromBinary, [one]) if one.is_binary() || *one == DataType::Null => {
                Ok(vec![DataType::Binary])
            }
            (Compute::FromBinary, _) => no_such_call(self.name(), found, "(bytea)"),
            (_, [one]) if text(one) => Ok(vec![DataType::Utf8]),
            _ => no_such_call(self.name(), found, "(geometry)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.compute() {
            Compute::Relation(_) | Compute::IsValid => DataType::Boolean,
            Compute::Measure(_) | Compute::Distance => DataType::Float64,
            Compute::ToBinary => DataType::Binary,
            Compute::FromBinary | Compute::Normal => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let array: ArrayRef = match self.compute() {
            Compute::Relation(holds) => {
                let answer =
                    |left: &_, right: &Geometry<f64>| Some(holds(&Relate::relate(left, right)));
                Arc::new(pairs(&arrays, answer)?.into_iter().collect::<BooleanArray>())
            }
            Compute::Distance => {
                let answer = |left: &Geometry<f64>, right: &Geometry<f64>| {
                    let found = !left.is_empty() && !right.is_empty();
                    found.then(|| Euclidean.distance(left, right))
                };
                Arc::new(pairs(&arrays, answer)?.into_iter().collect::<Float64Array>())
            }
            Compute::Measure(measure) => {
                let found = each(&arrays[0], |text| Ok(measure(&shape(text)?)))?;
                Arc::new(found.into_iter().map(Option::flatten).collect::<Float64Array>())
            }
            Compute::IsValid => {
                let found = each(&arrays[0], |text| Ok(planar(parse(text)?).is_ok()))?;
                Arc::new(found.into_iter().collect::<BooleanArray>())
            }
            Compute::ToBinary => {
                Arc::new(each(&arrays[0], to_binary)?.into_iter().collect::<BinaryArray>())
            }
            Compute::Normal => {
                let found = each(&arrays[0], |text| Ok(parse(text)?.to_string()))?;
                Arc::new(found.into_iter().collect::<StringArray>())
            }
            Compute::FromBinary => {
                let bytes = arrays[0].as_binary::<i32>().iter();
                let texts = bytes.map(|one| one.map(from_binary).transpose());
                Arc::new(texts.collect::<Result<StringArray>>()?)
            }
        };
        scalar_if(&args.args, array)
    }
}

fn place(shape: &Geometry<f64>) -> Option<geo::Point<f64>> {
    match shape {
        Geometry::Point(point) => Some(*point),
        _ => None,
    }
}

fn shape(text: &str) -> Result<Geometry<f64>> {
    Ok(planar(parse(text)?)?)
}

/// Computes of each text; NULL of NULL.
fn each<T>(texts: &ArrayRef, of: impl Fn(&str) -> Result<T>) -> Result<Vec<Option<T>>> {
    let texts = texts.as_string::<i32>().iter();
    texts.map(|text| text.map(&of).transpose()).collect()
}

/// Computes of each two shapes. One that is compared with many in turn is read once.
fn pairs<T>(
    arrays: &[ArrayRef],
    of: impl Fn(&Geometry<f64>, &Geometry<f64>) -> Option<T>,
) -> Result<Vec<Option<T>>> {
    let (lefts, rights) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
    let (mut left, mut right) = (Last::default(), Last::default());
    let mut all = Vec::with_capacity(lefts.len());
    for row in 0..lefts.len() {
        if lefts.is_null(row) || rights.is_null(row) {
            all.push(None);
            continue;
        }
        all.push(of(left.read(lefts.value(row))?, right.read(rights.value(row))?));
    }
    Ok(all)
}

/// The shape that was read last.
#[derive(Default)]
struct Last<'a>(Option<(&'a str, Geometry<f64>)>);

impl<'a> Last<'a> {
    fn read(&mut self, text: &'a str) -> Result<&Geometry<f64>> {
        let known = self.0.take().filter(|(known, _)| *known == text);
        let read = match known {
            Some(known) => known,
            None => (text, shape(text)?),
        };
        Ok(&self.0.insert(read).1)
    }
}

fn to_binary(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_geometry(&mut bytes, &parse(text)?, &WriteOptions::default())
        .map_err(|why| Error::internal(format!("a shape as bytes: {why}")))?;
    Ok(bytes)
}

fn from_binary(bytes: &[u8]) -> Result<String> {
    let invalid = |why: String| Error::new("22023", format!("invalid well-known binary: {why}"));
    let read = wkb::reader::read_wkb(bytes).map_err(|why| invalid(why.to_string()))?;
    // The library that writes texts stops the thread at an empty part.
    if has_empty_polygon(&read) {
        return Err(invalid("a part of it is empty".to_owned()).into());
    }
    let mut text = String::new();
    wkt::to_wkt::write_geometry(&mut text, &read).map_err(|why| invalid(why.to_string()))?;
    // As texts are read: the same limits hold.
    parse(&text)?;
    Ok(text)
}

/// Returns whether a shape of polygons has one without rings.
fn has_empty_polygon(shape: &impl GeometryTrait<T = f64>) -> bool {
    match shape.as_type() {
        GeometryType::MultiPolygon(all) => all.polygons().any(|one| one.exterior().is_none()),
        GeometryType::GeometryCollection(all) => {
            all.geometries().any(|one| has_empty_polygon(&one))
        }
        _ => false,
    }
}
