//! The evaluation transform, as nodes in front of the network and in words.

use super::graph::{Data, Graph};
use super::proto::{self, Attribute, ValueInfo};
use crate::data::preprocess::{CropMode, Preprocess};
use crate::data::resize::Interpolation;
use crate::error::{Error, Result};

/// What becomes of an image before the network sees it, in words.
pub fn sentence(input: &Preprocess) -> String {
    let Preprocess { image_size, interpolation, mean, std, grey, .. } = input;
    let resized = input.scale_size();
    let filter = match interpolation {
        Interpolation::Bilinear => "bilinear",
        Interpolation::Bicubic => "bicubic",
        Interpolation::Lanczos => "Lanczos",
    };
    let how = match input.crop_mode {
        CropMode::Center | CropMode::CenterFloor => {
            format!(
                "the shorter side to {resized} pixels ({filter}, antialiased), then the {image_size} x {image_size} centre"
            )
        }
        CropMode::Squash | CropMode::SquashFloor => {
            let crop = if resized == *image_size {
                String::new()
            } else {
                format!(", then the {image_size} x {image_size} centre")
            };
            format!("both sides to {resized} pixels ({filter}, antialiased){crop}")
        }
        CropMode::Border | CropMode::Longest => {
            format!(
                "the longer side to {resized} pixels ({filter}, antialiased), filled up to {image_size} x {image_size}"
            )
        }
    };
    let colours = if *grey { "one channel (luma)" } else { "RGB" };
    format!("{colours}; {how}; 0..255 to 0..1, minus mean {mean:?}, over std {std:?}; channels first")
}

/// Writes the transform of `[batch, height, width, 3]` u8 RGB images of one size; returns the graph's input, and the name of the
/// normalised images.
///
/// # Errors
/// [`Error::Usage`] for a filter or a crop that ONNX has no operators for.
pub(super) fn write(graph: &mut Graph, input: &Preprocess) -> Result<(ValueInfo, String)> {
    let cubic = match input.interpolation {
        Interpolation::Bilinear => false,
        Interpolation::Bicubic => true,
        Interpolation::Lanczos => {
            let what = "--with-preprocessing: ONNX's Resize has no Lanczos filter, which this model's input is made with: leave it out";
            return Err(Error::Usage(what.into()));
        }
    };
    let floors = matches!(input.crop_mode, CropMode::CenterFloor | CropMode::SquashFloor);
    let squashes = matches!(input.crop_mode, CropMode::Squash | CropMode::SquashFloor);
    if matches!(input.crop_mode, CropMode::Border | CropMode::Longest) || input.scale_size() < input.image_size {
        let what = "--with-preprocessing: this model's images are filled up at their edges, which the graph can't do: leave it out";
        return Err(Error::Usage(what.into()));
    }
    let name = graph.unique("pixels".into());
    graph.enter("preprocess");
    let mut x = graph.transpose(&name, &[0, 3, 1, 2]);
    if input.grey {
        x = luma(graph, &x);
    }
    // Of the input as it is: onnxruntime 1.32 loses count where it moves a transpose over a part of a shape.
    let shape = graph.one("Shape", &name);
    let sides = graph.slice(&shape, 0, 1, 2);
    let scaled = input.scale_size() as i64;
    let sizes = if squashes {
        graph.ints(&[scaled, scaled])
    } else {
        let scale = graph.int(scaled);
        let long = graph.two("Mul", &sides, &scale);
        let shorter = graph.reduce("ReduceMin", &sides, &[0]);
        graph.two("Div", &long, &shorter)
    };
    let batch = graph.slice(&shape, 0, 0, 1);
    let channels = if input.grey { 1 } else { 3 };
    let planes = graph.ints(&[channels as i64]);
    let all = graph.concat(&[&batch, &planes, &sizes], 0);
    let mode = if cubic { "cubic" } else { "linear" };
    let mut attributes = vec![
        Attribute::text("mode", mode),
        Attribute::int("antialias", 1),
        Attribute::text("coordinate_transformation_mode", "half_pixel"),
    ];
    if cubic {
        attributes.push(Attribute::float("cubic_coeff_a", -0.5));
    }
    let x = graph.node("Resize", &[&x, "", "", &all], attributes);
    let x = cropped(graph, &x, &sizes, input.image_size as i64, floors);
    let x = graph.node("Cast", &[&x], vec![Attribute::int("to", i64::from(proto::FLOAT))]);
    let x = graph.by("Div", &x, 255.0);
    let [mean, std] = [("mean", input.mean), ("std", input.std)].map(|(what, values)| {
        graph.store(&format!("preprocess/{what}"), &[channels, 1, 1], Data::F32(values[..channels].to_vec()))
    });
    let x = graph.two("Sub", &x, &mean);
    let x = graph.two("Div", &x, &std);
    let shape = [Err("batch"), Err("height"), Err("width"), Ok(3)];
    let doc = format!("RGB images of one size, 0..255, channels last; in the graph: {}", sentence(input));
    Ok((ValueInfo::new(&name, proto::UINT8, &shape, &doc), x))
}

/// Pillow's luma, `(19595 R + 38470 G + 7471 B + 32768) >> 16`: f32 holds all of these numbers.
fn luma(graph: &mut Graph, x: &str) -> String {
    let x = graph.node("Cast", &[x], vec![Attribute::int("to", i64::from(proto::FLOAT))]);
    let shares = vec![19595.0, 38470.0, 7471.0];
    let shares = graph.store("preprocess/luma", &[3, 1, 1], Data::F32(shares));
    let x = graph.two("Mul", &x, &shares);
    let x = graph.reduce("ReduceSum", &x, &[1]);
    let x = graph.by("Add", &x, 32768.0);
    let x = graph.by("Div", &x, 65536.0);
    let x = graph.one("Floor", &x);
    graph.node("Cast", &[&x], vec![Attribute::int("to", i64::from(proto::UINT8))])
}

/// The centre of an image of `sizes`: half of the cut is rounded to even, or down.
fn cropped(graph: &mut Graph, x: &str, sizes: &str, size: i64, floors: bool) -> String {
    let wanted = graph.ints(&[size, size]);
    let cut = graph.two("Sub", sizes, &wanted);
    let from = if floors {
        let two = graph.int(2);
        graph.two("Div", &cut, &two)
    } else {
        let cut = graph.node("Cast", &[&cut], vec![Attribute::int("to", i64::from(proto::FLOAT))]);
        let half = graph.by("Div", &cut, 2.0);
        let half = graph.one("Round", &half);
        graph.node("Cast", &[&half], vec![Attribute::int("to", i64::from(proto::INT64))])
    };
    let to = graph.two("Add", &from, &wanted);
    let axes = graph.ints(&[2, 3]);
    graph.node("Slice", &[x, &from, &to, &axes], vec![])
}
