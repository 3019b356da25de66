//! How often something is done: after steps, or after a time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `500` steps, or a time such as `30s`, `10m` or `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval {
    /// So many steps.
    Steps(u64),
    /// So many seconds.
    Seconds(u64),
}

impl Interval {
    /// Whether it is over, after so many steps and so long a time. An interval of 0 never is.
    pub fn is_over(self, steps: u64, time: Duration) -> bool {
        match self {
            Interval::Steps(0) | Interval::Seconds(0) => false,
            Interval::Steps(of) => steps >= of,
            Interval::Seconds(of) => time.as_secs() >= of,
        }
    }
}

/// Seconds of each unit.
const UNITS: [(char, u64); 3] = [('h', 3600), ('m', 60), ('s', 1)];

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a number of steps, or a time such as 30s, 10m or 2h".to_string();
        let number = |text: &str| text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok()).ok_or_else(wrong);
        match UNITS.iter().find(|(unit, _)| text.ends_with(*unit)) {
            Some((unit, seconds)) => {
                let count = number(text.strip_suffix(*unit).unwrap_or_default())?;
                count.checked_mul(*seconds).map(Interval::Seconds).ok_or_else(wrong)
            }
            None => number(text).map(Interval::Steps),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Interval::Steps(steps) => write!(f, "{steps}"),
            Interval::Seconds(seconds) => {
                let fits = |(_, of): &&(char, u64)| seconds.is_multiple_of(*of) && seconds > 0;
                let (unit, of) = UNITS.iter().find(fits).unwrap_or(&UNITS[2]);
                write!(f, "{}{unit}", seconds / of)
            }
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Interval::Steps(steps) => to.serialize_u64(*steps),
            Interval::Seconds(_) => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "invalid interval: a number of steps, or a time such as \"30s\", \"10m\" or \"2h\""
        )]
        enum Written {
            Steps(u64),
            Text(String),
        }
        match Written::deserialize(from)? {
            Written::Steps(steps) => Ok(Interval::Steps(steps)),
            Written::Text(text) => {
                text.parse().map_err(|e| serde::de::Error::custom(format!("invalid interval {text:?}: {e}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read_as_they_are_written() {
        for (text, interval, written) in [
            ("500", Interval::Steps(500), "500"),
            ("0", Interval::Steps(0), "0"),
            ("10m", Interval::Seconds(600), "10m"),
            ("90s", Interval::Seconds(90), "90s"),
            ("120m", Interval::Seconds(7200), "2h"),
            ("0s", Interval::Seconds(0), "0s"),
        ] {
            assert_eq!(text.parse(), Ok(interval));
            assert_eq!(interval.to_string(), written);
            assert_eq!(written.parse(), Ok(interval));
        }
        for wrong in ["", "m", "10 m", "-1", "1.5m", "10d", "99999999999999999999", "9223372036854775807h"] {
            assert!(wrong.parse::<Interval>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interval_is_over_after_its_steps_or_its_time() {
        let long = Duration::from_secs(600);
        assert!(Interval::Steps(5).is_over(5, Duration::ZERO) && !Interval::Steps(5).is_over(4, long));
        assert!(Interval::Seconds(600).is_over(0, long) && !Interval::Seconds(601).is_over(u64::MAX, long));
        assert!(!Interval::Steps(0).is_over(u64::MAX, long) && !Interval::Seconds(0).is_over(u64::MAX, long));
    }
}
