//! Which keys of a configuration are understood: whatever is not, by its name and value, is refused.

use serde_json::{Map, Value};

use super::json::quote;

/// The keys of one object of a configuration, by what becomes of them. A value that is null, or the key's default, is always
/// fine.
pub(super) struct Keys {
    /// Followed, or told by the tensors as well.
    pub(super) followed: &'static [&'static str],
    /// Without effect on what a trained model computes.
    pub(super) idle: &'static [&'static str],
    /// Understood with these values alone, each written as JSON.
    pub(super) only: &'static [(&'static str, &'static [&'static str])],
}

impl Keys {
    /// Whether a key has a rule.
    pub(super) fn lists(&self, key: &str) -> bool {
        self.followed.contains(&key) || self.idle.contains(&key) || self.only.iter().any(|(own, _)| *own == key)
    }

    /// The fault of an entry, if it has one. `place` stands before the key in the file, such as `model_args.`.
    pub(super) fn fault(&self, place: &str, key: &str, value: &Value) -> Option<String> {
        let listed = |list: &[&str]| list.contains(&key);
        if value.is_null() || listed(self.followed) || listed(self.idle) {
            return None;
        }
        let shown = quote(&value.to_string());
        let Some((_, values)) = self.only.iter().find(|(own, _)| *own == key) else {
            return Some(format!(
                "{place}{key} is {shown}: this key is not known, so what it changes can't be told; remove it if it \
                 changes nothing"
            ));
        };
        if values.iter().any(|known| same(&serde_json::from_str(known).unwrap_or(Value::Null), value)) {
            return None;
        }
        let supported = if values.is_empty() { String::new() } else { format!(", only {}", values.join(", ")) };
        Some(format!("{place}{key} is {shown}: not supported yet{supported}"))
    }

    /// The fault of the first entry that has one.
    pub(super) fn fault_in(&self, place: &str, entries: &Map<String, Value>) -> Option<String> {
        entries.iter().find_map(|(key, value)| self.fault(place, key, value))
    }
}

/// Whether two values are the same, numbers by their size: 1 is 1.0.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEYS: Keys = Keys { followed: &["width"], idle: &["drop"], only: &[("bias", &["true"]), ("scale", &["1"])] };

    #[test]
    fn every_key_has_its_rule() {
        for (key, value) in [
            ("width", json!(3)),
            ("drop", json!(0.5)),
            ("bias", json!(true)),
            ("scale", json!(1.0)),
            ("odd", json!(null)),
        ] {
            assert_eq!(KEYS.fault("cfg.", key, &value), None);
        }
        let fault = |key, value| KEYS.fault("cfg.", key, &value).unwrap();
        assert_eq!(fault("bias", json!(false)), "cfg.bias is false: not supported yet, only true");
        assert!(fault("odd", json!(false)).starts_with("cfg.odd is false: this key is not known"));
        let map = json!({"drop": 0.1, "scale": 2});
        assert!(KEYS.fault_in("", map.as_object().unwrap()).unwrap().starts_with("scale is 2: not supported yet"));
    }
}
