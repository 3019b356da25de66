//! What a text in a language like C declares at its top level. Compilers refuse a text that defines the same twice; naga only
//! writes it.

use std::collections::BTreeSet;

/// What `text` (HLSL, MSL or GLSL) defines more than once: functions by name and types of parameters, all else by name.
pub(crate) fn defined_twice(text: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    definitions(text).into_iter().filter(|name| !seen.insert(name.clone())).collect()
}

/// Everything that `text` defines, in order: `name(type, type)` for functions.
pub(crate) fn definitions(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with('#')).collect();
    let (mut found, mut head, mut depth) = (Vec::new(), String::new(), 0usize);
    for c in text.join("\n").chars() {
        match c {
            '{' => {
                if depth == 0 {
                    head.push('{');
                }
                depth += 1;
            }
            '}' => {
                depth -= 1;
                // A function ends with its body; a struct, block or list of values with what follows.
                if depth == 0 && is_function(&head) {
                    found.extend(name_of(&head));
                    head.clear();
                }
            }
            ';' if depth == 0 => {
                found.extend(name_of(&head));
                head.clear();
            }
            c if depth == 0 => head.push(c),
            _ => {}
        }
    }
    found
}

fn is_function(head: &str) -> bool {
    let head = plain(head);
    head.contains('(') && !head.contains('=') && head.ends_with('{')
}

/// Without attributes, layouts and registers, which have brackets of their own.
fn plain(head: &str) -> String {
    let mut rest = head.to_string();
    for (opening, closing) in
        [("[[", "]]"), ("[numthreads", "]"), ("layout(", ")"), (": register(", ")"), ("template <", ">")]
    {
        while let Some(start) = rest.find(opening) {
            let Some(length) = rest[start..].find(closing) else { break };
            rest.replace_range(start..start + length + closing.len(), " ");
        }
    }
    rest.trim().to_string()
}

/// The name of what a head declares; none for what defines nothing, as `using` and functions without a body.
fn name_of(head: &str) -> Option<String> {
    let head = plain(head);
    let identifier = |text: &str| {
        let last = text.rsplit(|c: char| !c.is_alphanumeric() && c != '_').find(|word| !word.is_empty());
        last.map(str::to_string)
    };
    if is_function(&head) {
        let (name, parameters) = head.split_once('(')?;
        let parameters = parameters.rsplit_once(')')?.0.split(',');
        // `: SV_GroupID` says what a parameter means.
        let declared = parameters.map(|one| one.split(':').next().unwrap_or_default().trim());
        let types = declared.map(|one| one.rsplit_once(char::is_whitespace).map_or("", |(ty, _)| ty));
        return Some(format!("{}({})", identifier(name)?, types.collect::<Vec<_>>().join(", ")));
    }
    let head = head.split('=').next()?.trim();
    let nothing = ["using ", "precision "].iter().any(|start| head.starts_with(start)) || head.contains('(');
    if nothing || head.is_empty() {
        return None;
    }
    // `struct Name {`, then perhaps a variable of it.
    let before = head.split('{').next()?;
    identifier(before.split('[').next()?)
}

#[test]
fn what_is_defined_twice_is_found() {
    let overloaded = "float4 zero() { return float4(0); }\nstruct P { uint a; uint b; };\nfloat f(float x, uint y) { return x; }\n\
        float f(float4 x, uint y) { return x.x; }\nstatic const uint N = 4u;\ngroupshared float4 tile[N];\n\
        RWByteAddressBuffer out_ : register(u1);\n[numthreads(64, 1, 1)]\nvoid main(uint3 id : SV_GroupID) { if (id.x) { f(1, 2); } }\n";
    assert_eq!(
        definitions(overloaded),
        ["zero()", "P", "f(float, uint)", "f(float4, uint)", "N", "tile", "out_", "main(uint3)"]
    );
    assert!(defined_twice(overloaded).is_empty());
    for (again, name) in [
        ("float4 zero() { return (float4)0; }", "zero()"),
        ("float f(float a, uint b) { return a; }", "f(float, uint)"),
        ("struct P { float c; };", "P"),
        ("groupshared float4 tile[8];", "tile"),
        ("static const float N = 2.0;", "N"),
    ] {
        assert_eq!(defined_twice(&format!("{overloaded}{again}\n")), [name]);
    }
}
