//! The shape of cooperative matrices. WGSL, as naga 30 reads it, has names for matrices of 8 × 8 and of 16 × 16; its modules
//! have others, such as the 8 × 16 × 16 of Intel's GPUs. So a shader is written with square ones, and given the shape here.

use naga::{CooperativeRole, CooperativeSize, Expression, Literal, Module, Type, TypeInner};

/// Whether a module has cooperative matrices.
pub(super) fn has_any(module: &Module) -> bool {
    module.types.iter().any(|(_, ty)| matches!(ty.inner, TypeInner::CooperativeMatrix { .. }))
}

/// What the constant `name` is, if it is the size of a matrix.
fn constant(module: &Module, name: &str) -> Option<CooperativeSize> {
    let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
    match module.global_expressions[constant.init] {
        Expression::Literal(Literal::U32(8)) => Some(CooperativeSize::Eight),
        Expression::Literal(Literal::U32(16)) => Some(CooperativeSize::Sixteen),
        _ => None,
    }
}

/// Gives a module's cooperative matrices the shape CM × CK, CK × CN and CM × CN, if it has these constants.
pub(super) fn shape(module: &mut Module) {
    if !has_any(module) {
        return;
    }
    let [Some(m), Some(n), Some(k)] = ["CM", "CN", "CK"].map(|name| constant(module, name)) else { return };
    let shape_of = |role| match role {
        CooperativeRole::A => (k, m),
        CooperativeRole::B => (n, k),
        CooperativeRole::C => (n, m),
    };
    let types: Vec<_> = module.types.iter().map(|(handle, ty)| (handle, ty.clone())).collect();
    for (handle, old) in types {
        if let TypeInner::CooperativeMatrix { scalar, role, .. } = old.inner {
            let (columns, rows) = shape_of(role);
            let inner = TypeInner::CooperativeMatrix { columns, rows, scalar, role };
            let new = Type { name: old.name.clone(), inner };
            if new != old {
                module.types.replace(handle, new);
            }
        }
    }
    let of_entries = module.entry_points.iter_mut().map(|point| &mut point.function);
    for function in module.functions.iter_mut().map(|(_, function)| function).chain(of_entries) {
        for (_, expression) in function.expressions.iter_mut() {
            if let Expression::CooperativeLoad { columns, rows, role, .. } = expression {
                (*columns, *rows) = shape_of(*role);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::gpu::tiles::Cooperative;

    #[test]
    fn matrices_get_the_shape_that_the_constants_tell() {
        for shape in [[8, 8, 8], [16, 16, 16], [8, 16, 16], [8, 8, 16]] {
            let tail = Cooperative { shape, subgroup: [16, 32] }.text();
            let source = format!(
                "enable f16; enable wgpu_cooperative_matrix;
                var<workgroup> a: array<f16, 256>; var<workgroup> b: array<f16, 256>; var<workgroup> c: array<f32, 256>;
                @compute @workgroup_size(LANES) fn forward() {{
                    let sum = coopLoadT<mat_c>(&c[0], CN);
                    let x = coopLoadT<mat_a>(&a[0], CK);
                    let y = coopLoad<mat_b>(&b[0], CK);
                    coopStoreT(coopMultiplyAdd(x, y, sum), &c[0], CN);
                }}\n{tail}"
            );
            let (module, _) = crate::gpu::kernel::parse("shape", &source).unwrap();
            let [m, n, k] = shape.map(|n| n as u32);
            let mut found = Vec::new();
            for (_, ty) in module.types.iter() {
                if let naga::TypeInner::CooperativeMatrix { columns, rows, role, .. } = ty.inner {
                    found.push((format!("{role:?}"), rows as u32, columns as u32));
                }
            }
            found.sort();
            assert_eq!(found, [("A".to_string(), m, k), ("B".to_string(), k, n), ("C".to_string(), m, n)]);
            for (_, e) in module.entry_points[0].function.expressions.iter() {
                if let naga::Expression::CooperativeLoad { columns, rows, role, .. } = e {
                    let own = (format!("{role:?}"), *rows as u32, *columns as u32);
                    assert!(found.contains(&own), "{own:?}, {found:?}");
                }
            }
        }
    }
}
