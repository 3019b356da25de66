//! A ResNet through every command.

use crate::{Space, TRAIN, with};

const INIT: &str = "init --arch resnet --depths 1 1 --classes-of train --seed 3";

/// With a ResNet of two stages as `m.safetensors`.
fn space() -> Space {
    let space = Space::new();
    space.ok(&format!("{INIT} --widths 8 16 --image-size 16 --out m.safetensors"));
    space
}

#[test]
fn a_resnet_is_made_fine_tuned_projected_and_read_again() {
    let space = space();
    assert!(space.ok("inspect m.safetensors").contains("basic blocks 1-1 of 8, 16 channels"));
    space.ok(&with(TRAIN, "--epochs 4 --lr 0.02 --test id=test --out run"));
    let (before, after) = (space.tensors("m.safetensors"), space.tensors("run/last.safetensors"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for name in ["bn1.running_mean", "bn1.running_var", "conv1.weight", "layer2.0.downsample.1.running_var"] {
        assert_ne!(before[name], after[name], "{name}");
    }
    let radii = space.rows("run/radii.csv");
    assert!(radii.iter().any(|row| row[1] == "layer1.0.bn1.weight" && row[5] == "1"));
    assert!(radii.iter().all(|row| !row[1].contains("running")));

    let last =
        space.lines("run/metrics.jsonl").into_iter().find(|l| l["final"] == true && l["model"] == "last").unwrap();
    let again = space.json("eval --model run/last.safetensors --data id=test");
    assert!((last["loss"].as_f64().unwrap() - again[0]["loss"].as_f64().unwrap()).abs() < 1e-5);
    space.ok("predict --model run/last.safetensors --data test --logits logits.safetensors");

    space.ok(
        "project --pretrained m.safetensors --finetuned run/last.safetensors --val val --max-iters 3 --out c.safetensors",
    );
    let projected = space.tensors("c.safetensors");
    assert_eq!(projected["bn1.running_mean"], after["bn1.running_mean"]);
    assert_ne!(projected["conv1.weight"], after["conv1.weight"]);
}

#[test]
fn frozen_statistics_stay_and_a_new_head_has_no_radius() {
    let space = space();
    space.ok("init --out m4.safetensors --arch resnet --block bottleneck --depths 1 1 --widths 16 32 --image-size 16 \
              --classes-of train");
    let flags = "--bn frozen --epochs 1 --model m4.safetensors --out run";
    space.ok(&with(TRAIN, flags));
    let (before, after) = (space.tensors("m4.safetensors"), space.tensors("run/last.safetensors"));
    for (name, tensor) in &before {
        assert_eq!(name.contains("running"), after[name] == *tensor, "{name}");
    }
    assert!(space.text("run/config.toml").contains("bn = \"frozen\""));

    // With --freeze-bn the norms' weights and biases stay, too.
    let flags = "--freeze-bn --layer-decay 0.5 --model m4.safetensors";
    space.ok(&with(TRAIN, &format!("{flags} --epochs 1 --out whole")));
    let after = space.tensors("whole/last.safetensors");
    let norm = |name: &str| name.starts_with("bn") || name.contains(".bn") || name.contains("downsample.1.");
    let (norms, others): (Vec<&String>, Vec<&String>) = before.keys().partition(|name| norm(name));
    assert!(norms.len() > 10 && norms.iter().all(|name| after[*name] == before[*name]));
    assert!(others.iter().all(|name| after[*name] != before[*name]), "{others:?}");

    for (split, count) in [("train", 6), ("val", 4)] {
        for i in 0..count {
            let to = space.path(&format!("two-{split}/{}/{i}.png", ["a", "b"][i % 2]));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(space.path(&format!("{split}/red/{}.png", i % 4)), to).unwrap();
        }
    }
    space.ok("finetune --model m.safetensors --train two-train --val two-val --epochs 1 --batch-size 3 --out new");
    let radii = space.rows("new/radii.csv");
    assert!(!radii.is_empty() && radii.iter().all(|row| !row[1].starts_with("fc.")));
    assert_eq!(space.tensors("new/last.safetensors")["fc.weight"].0, [2, 16]);
}

#[test]
fn what_a_resnet_can_not_be_trained_on_is_said_before_the_run() {
    let space = space();
    let single = "--image-size 8 --batch-size 17 --no-shuffle --out run";
    space.fails(2, &with(TRAIN, single), &["batch of one image", "--bn frozen"]);
    assert!(!space.path("run").exists());
    // Shuffled, the single image joins the batch before it.
    space.ok(&with(TRAIN, "--image-size 8 --batch-size 17 --epochs 2 --out joined"));
    assert_eq!(space.lines("joined/metrics.jsonl").iter().filter(|line| line.get("train_loss").is_some()).count(), 2);
    space.fails(2, &with(TRAIN, "--image-size 8 --batch-size 1 --out run"), &["batch of one image"]);
    space.fails(2, &with(TRAIN, "--image-size 7 --out run"), &["7 pixels", "stride of 8"]);
    space.fails(2, &with(TRAIN, "--heads 2 --out run"), &["--heads", "ResNet"]);
    space.ok(
        "init --out vit.safetensors --classes-of train --image-size 16 --patch-size 8 --dim 16 --depth 1 --heads 2",
    );
    space.fails(2, &with(TRAIN, "--model vit.safetensors --bn frozen --out run"), &["--bn frozen", "batch norm"]);
    space.fails(2, &with(TRAIN, "--model vit.safetensors --freeze-bn --out run"), &["--freeze-bn", "batch norm"]);
    space.fails(1, "project --pretrained vit.safetensors --finetuned m.safetensors --val val --out c", &["inspect"]);

    space.fails(2, &format!("{INIT} --widths 8 --out x"), &["--depths", "--widths"]);
    space.fails(2, &format!("{INIT} --block bottleneck --widths 8 10 --out x"), &["multiple of 4"]);
    space.fails(2, &format!("{INIT} --image-size 4 --out x"), &["--image-size 4", "stride of 8"]);
}

/// OpenAI's layout: an image tower without a head beside what the text needs.
#[test]
fn clips_resnet_goes_through_every_command() {
    let space = Space::new();
    let path = crate::common::fixture_path("clip_resnet");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let scale = 4.6f32.to_le_bytes();
    let text = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![], &scale).unwrap();
    let tower = file
        .tensors()
        .into_iter()
        .filter(|(name, view)| name.starts_with("visual.") && view.dtype() == safetensors::Dtype::F32);
    let all: Vec<_> = tower.chain([("logit_scale".to_string(), text)]).collect();
    safetensors::serialize_to_file(all, None, &space.path("clip.safetensors")).unwrap();

    space.fails(1, "inspect clip.safetensors", &["clip.safetensors", "width 40", "--heads"]);
    space.fails(1, "eval --model clip.safetensors --heads 4 --data test", &["no head"]);
    let inspected = space.ok("inspect clip.safetensors --heads 4");
    assert!(inspected.contains("CLIP ResNet") && inspected.contains("logit_scale"), "{inspected}");

    let flags = "--model clip.safetensors --heads 4 --optimizer sgd --lr 0.01 --lr-schedule cosine-epoch \
                 --schedule every-step --test id=test --out run";
    space.ok(&with(TRAIN, flags));
    let (before, after) = (space.tensors("clip.safetensors"), space.tensors("run/last.safetensors"));
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert_eq!(new, ["head.bias", "head.weight"]);
    assert_eq!(after["head.weight"].0, [3, 12]);
    assert_eq!(before["logit_scale"], after["logit_scale"]);
    for part in ["conv3.weight", "layer1.0.conv2.weight", "attnpool.positional_embedding", "attnpool.q_proj.weight"] {
        let name = format!("visual.{part}");
        assert_ne!(before[&name], after[&name], "{name}");
    }
    let radii = space.rows("run/radii.csv");
    let of = |name: &str| radii.iter().find(|row| row[1] == name).map(|row| row[5].clone());
    assert_eq!(of("attnpool.q_proj.weight").as_deref(), Some("40"));
    assert_eq!((of("layer1.0.bn1.weight").as_deref(), of("layer1.0.bn1.bias").as_deref()), (Some("1"), Some("1")));
    assert_eq!(of("head.weight"), None);
    let config = space.text("run/config.toml");
    for line in ["heads = 4", "optimizer = \"sgd\"", "lr-schedule = \"cosine-epoch\"", "schedule = \"every-step\""] {
        assert!(config.contains(line), "{line}: {config}");
    }

    // The heads travel with the file.
    let last =
        space.lines("run/metrics.jsonl").into_iter().find(|l| l["final"] == true && l["model"] == "last").unwrap();
    let again = space.json("eval --model run/last.safetensors --data id=test");
    assert!((last["loss"].as_f64().unwrap() - again[0]["loss"].as_f64().unwrap()).abs() < 1e-5);
    space.ok("predict --model run/last.safetensors --data test --top 2");
    space.ok(
        "project --pretrained clip.safetensors --heads 4 --finetuned run/last.safetensors --val val --max-iters 2 \
         --out c.safetensors",
    );
    let projected = space.tensors("c.safetensors");
    assert_eq!(projected["head.weight"], after["head.weight"]);
    assert_ne!(projected["visual.attnpool.v_proj.weight"], after["visual.attnpool.v_proj.weight"]);
}

/// Trained at another size than it came with: its anchor's positions have to be resized as well, which is said where it is not.
#[test]
fn clips_resnet_is_projected_at_another_image_size() {
    let space = Space::new();
    std::fs::copy(crate::common::fixture_path("clip_resnet"), space.path("clip.safetensors")).unwrap();
    let flags = "--model clip.safetensors --heads 4 --image-size 96 --steps 1 --lr 0.001 --out run";
    let (_, said) = space.run(&with(TRAIN, flags));
    assert!(said.contains("positions resized from 2 x 2 (64 pixels) to 3 x 3 (96 pixels)"), "{said}");
    let saved = space.bytes("run/last.safetensors");
    let saved = safetensors::SafeTensors::deserialize(&saved).unwrap();
    assert_eq!(saved.tensor("visual.attnpool.positional_embedding").unwrap().shape(), [10, 40]);
    let project = "project --pretrained clip.safetensors --heads 4 --finetuned run/last.safetensors --val val \
                   --max-iters 1 --out c.safetensors";
    let parts = ["clip.safetensors: its positions are for images of 64 pixels", "for 96: give --image-size 96"];
    space.fails(1, project, &parts);
    space.ok(&format!("{project} --image-size 96"));
}
