//! Every family as an ONNX file: its graph, computed in f64 by an interpreter of our own, gives the library's logits. And networks that
//! several libraries have as folders for another one, which are read again. `tools/export/verify.py` runs the same in the programs that
//! they are for.

use std::fs;

use prost::Message;
use tpgm::checkpoint::{Overrides, Weight};
use tpgm::export::library::Library;
use tpgm::export::onnx::proto::{self, Model};
use tpgm::export::onnx::{Format, LIMIT, Options, Written, write};
use tpgm::export::{Origin, folder};
use tpgm::method::Snapshot;
use tpgm::train::source::Source;

use super::common::relative;
use super::onnx::{Tensor, run};
use super::{Family, LOGITS, NAMES, predict};

fn export(source: &Source, weights: Format, limit: usize) -> (tempfile::TempDir, Written) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { weights, with_preprocessing: false, limit };
    let tensors = (source.weights.as_slice(), source.stats.as_slice());
    let written =
        write(&dir.path().join("m.onnx"), &source.recognised, tensors, options).unwrap_or_else(|e| panic!("{e}"));
    (dir, written)
}

fn decode(dir: &tempfile::TempDir) -> Model {
    Model::decode(fs::read(dir.path().join("m.onnx")).unwrap().as_slice()).unwrap()
}

/// Images as the graph reads them: of a grey model one plane.
fn images(family: &Family, source: &Source, count: usize) -> Tensor {
    let shape = family.golden.shape("images");
    let plane = shape[2] * shape[3];
    let channels = if source.recognised.config.grey() { 1 } else { 3 };
    let all = family.golden.f32("images");
    let own = all.chunks(shape[1] * plane).take(count).flat_map(|image| &image[..channels * plane]);
    Tensor::new(vec![count, channels, shape[2], shape[3]], own.map(|v| f64::from(*v)).collect())
}

fn logits(model: &Model, images: Tensor) -> Vec<f32> {
    run(model, images).values.iter().map(|v| *v as f32).collect()
}

#[test]
fn every_family_computes_the_librarys_logits() {
    for name in NAMES {
        let family = Family::new(name);
        let source = family.open();
        let (dir, _) = export(&source, Format::F32, LIMIT);
        let model = decode(&dir);
        let want = family.golden.f32("logits");
        for count in [3, 1] {
            let got = logits(&model, images(&family, &source, count));
            let error = relative(&got, &want[..want.len() / 4 * count]);
            println!("{name}: {count} images, {error:.1e}");
            assert!(error < LOGITS, "{name}: {error:e}");
        }
    }
}

/// The rounded weights that are reported are those of the file.
#[test]
fn fewer_bits_compute_what_is_reported() {
    let largest: fn(&[f32]) -> f32 = |row| row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    for (name, format) in [
        ("timm_vit", Format::F16),
        ("timm_vit", Format::Int8),
        ("open_clip", Format::Int8),
        ("timm_bit", Format::Int8),
        ("timm_mobilenetv3", Format::F16),
        ("timm_eva02", Format::Int8),
    ] {
        let family = Family::new(name);
        let source = family.open();
        let (dir, written) = export(&source, format, LIMIT);
        let model = decode(&dir);
        let w = source.model().layout().pack(written.rounded.iter().map(|(_, _, values)| values.as_slice()));
        let want = predict(&source, &Snapshot { w, ..source.snapshot() }, &family.golden.f32("images"));
        let got = logits(&model, images(&family, &source, 4));
        let error = relative(&got, &want);
        println!("{name} {}: {error:.1e}", format.name());
        assert!(error < LOGITS, "{name}: {error:e}");

        // Half a step at most: of f16 a share of the value, of int8 of the channel's largest.
        let changed = |(a, b): &(&Weight, &Weight)| a.2 != b.2;
        let pairs: Vec<_> = source.weights.iter().zip(&written.rounded).filter(changed).collect();
        assert!(pairs.len() > 3, "{name}: the weights of products are rounded");
        assert!(pairs.iter().all(|(own, _)| own.1.len() > 1), "{name}: biases and norms are not");
        for (own, rounded) in pairs {
            let whole = largest(&own.2);
            for (a, b) in own.2.iter().zip(&rounded.2) {
                let most = if format == Format::F16 { a.abs() / 2048.0 + 6e-8 } else { whole / 254.0 * 1.001 };
                assert!((a - b).abs() <= most, "{name}: {} {a} became {b}", own.0);
            }
        }
        let bytes = |element: i32| {
            let graph = model.graph.as_ref().unwrap();
            graph.initializer.iter().filter(|t| t.data_type == Some(element)).count()
        };
        let (half, int) = (bytes(proto::FLOAT16), bytes(proto::INT8));
        assert!(if format == Format::F16 { half > 3 && int == 0 } else { int > 3 && half == 0 }, "{name}");
    }
}

#[test]
fn f16_refuses_what_it_cannot_hold() {
    let family = Family::new("timm_vit");
    let mut source = family.open();
    let (name, _, values) = source.weights.iter_mut().find(|(name, ..)| name == "blocks.0.mlp.fc1.weight").unwrap();
    values[3] = 7e4;
    let name = name.clone();
    let dir = tempfile::tempdir().unwrap();
    let options = Options { weights: Format::F16, with_preprocessing: false, limit: LIMIT };
    let path = dir.path().join("m.onnx");
    let error = write(&path, &source.recognised, (&source.weights, &source.stats), options).unwrap_err().to_string();
    assert!(error.contains(&name) && error.contains("70000") && error.contains("int8"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
}

/// More tensors than the file may hold lie beside it, each at a page of its own.
#[test]
fn a_large_model_has_its_tensors_beside_it() {
    let family = Family::new("timm_vit");
    let source = family.open();
    let (whole, _) = export(&source, Format::F32, LIMIT);
    let (dir, written) = export(&source, Format::F32, 1000);
    let data = fs::read(written.data.as_ref().unwrap()).unwrap();
    let mut model = decode(&dir);
    for tensor in &mut model.graph.as_mut().unwrap().initializer {
        if tensor.data_location != Some(proto::EXTERNAL) {
            assert_eq!(tensor.data_type, Some(proto::INT64));
            continue;
        }
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key)).unwrap();
            entry.value.clone().unwrap()
        };
        assert_eq!(entry("location"), "m.onnx.data");
        let [offset, length] = ["offset", "length"].map(|key| entry(key).parse::<usize>().unwrap());
        assert!(offset.is_multiple_of(4096));
        tensor.raw_data = Some(data[offset..][..length].to_vec());
        (tensor.external_data, tensor.data_location) = (Vec::new(), None);
    }
    assert_eq!(model, decode(&whole));
}

/// The graph that resizes, crops and normalises by itself, from pixels as they are decoded.
#[test]
fn preprocessing_in_the_graph_is_that_of_the_model() {
    use tpgm::data::{CropMode, Interpolation, RgbImage};
    let mut random = super::common::Random::new(3);
    for (name, crop_mode, interpolation, crop_pct) in [
        ("timm_vit", CropMode::Center, Interpolation::Bicubic, 0.8),
        ("timm_vit", CropMode::CenterFloor, Interpolation::Bilinear, 0.9),
        ("grey_vit", CropMode::Squash, Interpolation::Bilinear, 1.0),
        ("timm_vit", CropMode::SquashFloor, Interpolation::Bicubic, 0.85),
    ] {
        let family = Family::new(name);
        let mut source = family.open();
        let input = &mut source.recognised.preprocess;
        (input.crop_mode, input.interpolation, input.crop_pct) = (crop_mode, interpolation, crop_pct);
        let dir = tempfile::tempdir().unwrap();
        let options = Options { weights: Format::F32, with_preprocessing: true, limit: LIMIT };
        let path = dir.path().join("m.onnx");
        write(&path, &source.recognised, (&source.weights, &source.stats), options).unwrap();
        let model = decode(&dir);
        for (width, height) in [(37, 23), (19, 40), (16, 16)] {
            let image = RgbImage::from_fn(width, height, |x, y| {
                image::Rgb(std::array::from_fn(|c| {
                    (x * 4 + y * (2 + c as u32) + (random.bits() % 40) as u32).min(255) as u8
                }))
            });
            let pixels = image.as_raw().iter().map(|v| f64::from(*v)).collect();
            let pixels = Tensor::new(vec![1, height as usize, width as usize, 3], pixels);
            let got = logits(&model, pixels);
            let applied = source.recognised.preprocess.apply(&image);
            let want = tpgm::train::evaluate::Predictor::new(super::gpu(), source.model(), &source.snapshot(), 1);
            let want = tpgm::train::evaluate::Classifier::logits(&mut want.unwrap(), &applied, 1).unwrap();
            let error = relative(&got, &want);
            println!("{name} {crop_mode:?} {width} x {height}: {error:.1e}");
            // A level here and there: which axis comes first, and how weights are rounded.
            assert!(error < 3e-2, "{name} {crop_mode:?} {width} x {height}: {error:e}");
        }
    }
}

#[test]
fn the_file_says_how_its_input_is_made() {
    let family = Family::new("timm_vit");
    let mut source = family.open();
    source.recognised.classes = Some(["a", "b", "c", "d", "é"].map(String::from).into());
    let (dir, written) = export(&source, Format::F32, LIMIT);
    let model = decode(&dir);
    let entry = |key: &str| {
        let entry = model.metadata_props.iter().find(|entry| entry.key.as_deref() == Some(key)).unwrap();
        entry.value.clone().unwrap()
    };
    assert_eq!(entry("classes"), r#"["a","b","c","d","é"]"#);
    assert_eq!(entry("image_size"), "16");
    assert_eq!(entry("mean"), "[0.5,0.5,0.5]");
    let steps = "RGB; the shorter side to 17 pixels (bicubic, antialiased), then the 16 x 16 centre; 0..255 to 0..1, minus mean \
                 [0.5, 0.5, 0.5], over std [0.5, 0.5, 0.5]; channels first";
    assert_eq!(entry("preprocess.steps"), steps);
    let input: tpgm::data::Preprocess = serde_json::from_str(&entry("preprocess")).unwrap();
    assert_eq!(input, source.recognised.preprocess);
    assert_eq!(model.opset_import[0].version, Some(18));
    let graph = model.graph.unwrap();
    assert_eq!(graph.node.len(), written.nodes);
    let dims = |info: &proto::ValueInfo| {
        let shape = info.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap();
        shape.dim.iter().map(|d| d.param.clone().unwrap_or_else(|| d.value.unwrap().to_string())).collect::<Vec<_>>()
    };
    assert_eq!(dims(&graph.input[0]), ["batch", "3", "16", "16"]);
    assert_eq!(dims(&graph.output[0]), ["batch", "5"]);
}

/// The folder, read again as any other of its library, gives the logits.
#[test]
fn a_folder_for_another_library_is_the_same_model() {
    use Library::{Timm, Torchvision, Transformers};
    for (name, library, architecture) in [
        ("timm_vit", Transformers, "ViTForImageClassification"),
        ("hf_vit_narrow", Timm, "vit_base_patch16_224"),
        ("hf_vit_narrow", Transformers, "ViTForImageClassification"),
        ("timm_dino", Transformers, "ViTForImageClassification"),
        ("hf_dinov2", Timm, "vit_base_patch16_224"),
        ("hf_dinov2", Transformers, "Dinov2ForImageClassification"),
        ("hf_dinov2_reg_memory", Transformers, "Dinov2WithRegistersForImageClassification"),
        ("hf_resnet", Transformers, "ResNetForImageClassification"),
        ("hf_convnextv2", Timm, "convnext_tiny"),
        ("hf_convnext", Transformers, "ConvNextForImageClassification"),
        ("timm_convnextv2", Transformers, "ConvNextV2ForImageClassification"),
        ("tv_convnext", Timm, "convnext_tiny"),
        ("tv_convnext", Transformers, "ConvNextForImageClassification"),
        ("timm_convnext", Torchvision, "ConvNeXt"),
        ("timm_resnest", Timm, "resnest14d"),
        ("hf_beit_memory", Transformers, "BeitForImageClassification"),
    ] {
        let family = Family::new(name);
        let mut source = family.open();
        let classes = source.recognised.config.classes();
        source.recognised.classes = Some((0..classes).map(|i| format!("class {i}")).collect());
        let origin = Origin { weights: family.dir.path().into(), run: None };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let written = folder::write(&out, library, &source, &origin).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(written.architecture, architecture, "{name}");
        let card = fs::read_to_string(out.join("README.md")).unwrap();
        assert!(card.contains(architecture) && card.contains("class 1"), "{card}");

        let size = Some(family.golden.shape("images")[2]);
        let again = Source::open(&out, &Overrides { image_size: size, ..Overrides::default() });
        let again = again.unwrap_or_else(|e| panic!("{name} for {}: {e}", library.name()));
        let got = predict(&again, &again.snapshot(), &family.golden.f32("images"));
        let error = relative(&got, &family.golden.f32("logits"));
        println!("{name} for {}: {error:.1e}", library.name());
        assert!(error < LOGITS, "{name} for {}: {error:e}", library.name());
        if library != Torchvision {
            assert_eq!(again.recognised.classes, source.recognised.classes, "{name}");
            let [own, other] = [&source, &again].map(|s| s.recognised.preprocess.clone());
            assert_eq!((own.mean, own.std, own.interpolation), (other.mean, other.std, other.interpolation), "{name}");
            let resized = |p: &tpgm::data::Preprocess| (p.image_size as f64 / p.crop_pct).floor();
            assert_eq!(resized(&own), resized(&other), "{name}");
        }
    }
}

#[test]
fn what_a_library_does_not_have_is_refused() {
    for (name, library, why) in [
        ("timm_eva02", Library::Transformers, "has none with other biases"),
        ("timm_vgg", Library::Transformers, "no counterpart"),
        ("timm_resnest", Library::Torchvision, "ResNet has none with"),
        ("timm_vit", Library::Torchvision, "does not come from torchvision"),
        ("hf_dinov2_classifier", Library::Timm, "no pooling like this model's"),
        ("open_clip", Library::Timm, "features of unit length"),
    ] {
        let family = Family::new(name);
        let origin = Origin { weights: family.dir.path().into(), run: None };
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        let error = folder::write(&out, library, &family.open(), &origin).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(library.name()) && !error.contains('\n'), "{name}: {error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{name}: nothing is left");
    }
}
