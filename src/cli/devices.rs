//! `tpgm devices`

use clap::Args;
use serde_json::json;

use crate::cli::{AdapterArgs, print, print_json};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::gpu::adapters::{AdapterEntry, adapters, choose, hidden};
use crate::gpu::buffer::mib;
use crate::gpu::cache::cache_dir;
use crate::gpu::tiles::{Cooperative, Tile};

/// Flags of `devices`.
#[derive(Args, Debug)]
pub(super) struct DevicesArgs {
    #[command(flatten)]
    adapter: AdapterArgs,
    /// One JSON document on stdout
    #[arg(long)]
    json: bool,
}

/// The features that make a difference, by the names people know.
fn features(entry: &AdapterEntry) -> Vec<&'static str> {
    let wanted = [
        (wgpu::Features::SUBGROUP, "subgroups"),
        (wgpu::Features::SHADER_F16, "f16"),
        (wgpu::Features::TIMESTAMP_QUERY, "timestamps"),
        (wgpu::Features::IMMEDIATES, "immediates"),
    ];
    let has = entry.adapter.features();
    wanted.iter().filter(|(feature, _)| has.contains(*feature)).map(|(_, name)| *name).collect()
}

pub(super) fn run(args: DevicesArgs) -> Result<()> {
    let found = adapters(true)?;
    let taken = choose(&found, args.adapter.adapter.as_deref());
    if args.json {
        let list: Vec<_> = found.iter().map(|a| entry_json(a, taken.as_ref().is_ok_and(|t| *t == a.index))).collect();
        print_json(&list)?;
        return taken.map(|_| ());
    }
    let mut text = String::new();
    for a in &found {
        let (info, limits) = (&a.info, a.adapter.limits());
        text += &format!("{}: {} ({:?}, {:?})\n", a.index, info.name, info.backend, info.device_type);
        text += &format!("   driver    {} {}\n", info.driver, info.driver_info);
        text += &format!(
            "   limits    buffer {}, binding {}, workgroup memory {}, {} invocations per workgroup\n",
            mib(limits.max_buffer_size),
            mib(limits.max_storage_buffer_binding_size),
            mib(u64::from(limits.max_compute_workgroup_storage_size)),
            limits.max_compute_invocations_per_workgroup,
        );
        text += &format!("   features  {}", features(a).join(", "));
        if features(a).contains(&"subgroups") {
            text += &format!(" ({} to {} lanes)", info.subgroup_min_size, info.subgroup_max_size);
        }
        text += "\n";
        for line in matrices(a) {
            text += &format!("   matrices  {line}\n");
        }
        if let Some(why) = &a.unusable {
            text += &format!("   unusable  {why}\n");
        }
    }
    for info in hidden(&found) {
        text += &format!(
            "-: {} (Vulkan, {:?})\n   driver    {} {}\n   left out  it does not claim to conform to Vulkan; \
             WGPU_ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER=1 lets it in: then run `tpgm check` first\n",
            info.name, info.device_type, info.driver, info.driver_info
        );
    }
    print(&text)?;
    let taken = taken?;
    let why = match (&args.adapter.adapter, std::env::var("WGPU_ADAPTER_NAME")) {
        (Some(wanted), _) => format!("--adapter {wanted}"),
        (None, Ok(name)) => format!("WGPU_ADAPTER_NAME={name}"),
        (None, Err(_)) => "the best usable one: real GPUs come before CPUs, native drivers before GL".into(),
    };
    print(&format!("a run takes {taken}: {} ({why})\n", found[taken].info.name))
}

/// The matrix units that an adapter offers, by their shapes, and whether those of them that f16 products take were found to
/// compute the right thing.
fn matrices(a: &AdapterEntry) -> Vec<String> {
    let taken = Cooperative::of(&a.adapter);
    let offered = a.adapter.cooperative_matrix_properties().into_iter();
    let line = |p: wgpu::CooperativeMatrixProperties| {
        let shape = [p.m_size, p.n_size, p.k_size];
        let own = (p.ab_type, p.cr_type) == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32)
            && taken.is_some_and(|taken| taken.shape.map(|n| n as u32) == shape);
        let of = if own { format!(", for f16 products: {}", found(a)) } else { String::new() };
        format!("{}×{}×{} of {:?} to {:?}{of}", shape[0], shape[1], shape[2], p.ab_type, p.cr_type)
    };
    offered.map(line).collect()
}

/// What the comparison before the first f16 run found, if there was one.
fn found(a: &AdapterEntry) -> &'static str {
    let known = Gpu::from_adapter(a.adapter.clone(), false).ok().and_then(|gpu| {
        gpu.load_choices(&cache_dir()?).ok()?;
        gpu.found_right(Tile::Cooperative)
    });
    match known {
        Some(true) => "compared with the ordinary kernels, right",
        Some(false) => "compared with the ordinary kernels, wrong, not used",
        None => "not compared yet, the first f16 run does",
    }
}

fn entry_json(a: &AdapterEntry, taken: bool) -> serde_json::Value {
    let limits = a.adapter.limits();
    json!({
        "index": a.index,
        "name": a.info.name,
        "backend": format!("{:?}", a.info.backend),
        "type": format!("{:?}", a.info.device_type),
        "driver": a.info.driver,
        "driver_info": a.info.driver_info,
        "matrices": matrices(a),
        "max_buffer_size": limits.max_buffer_size,
        "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
        "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
        "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
        "features": features(a),
        "unusable": a.unusable,
        "taken": taken,
    })
}
