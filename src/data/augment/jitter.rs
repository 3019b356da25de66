//! Colours changed at random: torchvision's `ColorJitter`.

use std::fmt;

use rand::Rng;
use rand::seq::SliceRandom;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::colour;
use crate::data::decode::RgbImage;

/// How far each may change: factors are drawn from 1 − x to 1 + x (not below 0), and the hue's shift from −x to x, of which 1 is a
/// whole circle. 0 for not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColorJitter {
    /// Of the factor on all values.
    pub brightness: f64,
    /// Of the factor on what differs from the mean grey.
    pub contrast: f64,
    /// Of the factor on what differs from grey.
    pub saturation: f64,
    /// At most 0.5.
    pub hue: f64,
}

impl ColorJitter {
    /// None.
    pub const NONE: ColorJitter = ColorJitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };

    fn values(self) -> [f64; 4] {
        [self.brightness, self.contrast, self.saturation, self.hue]
    }

    fn of_values(values: &[f64]) -> Result<ColorJitter, String> {
        let [brightness, contrast, saturation, hue] = match *values {
            [all] => [all, all, all, 0.0],
            [b, c, s] => [b, c, s, 0.0],
            [b, c, s, h] => [b, c, s, h],
            _ => {
                return Err(
                    "one number for brightness, contrast and saturation, or three or four (with the hue)".into()
                );
            }
        };
        let jitter = ColorJitter { brightness, contrast, saturation, hue };
        match values.iter().all(|v| (0.0..=100.0).contains(v)) && hue <= 0.5 {
            true => Ok(jitter),
            false => Err("numbers must be 0 to 100, and the hue at most 0.5".into()),
        }
    }

    /// Changes brightness, contrast, saturation and hue, each if its range is above 0, in an order that is drawn.
    pub(super) fn apply(self, image: &mut RgbImage, rng: &mut impl Rng) {
        if self == ColorJitter::NONE {
            return;
        }
        let mut order = [0, 1, 2, 3];
        order.shuffle(rng);
        for (at, by) in order.map(|at| (at, self.values()[at])).into_iter().filter(|(_, by)| *by > 0.0) {
            if at == 3 {
                colour::hue(image, rng.random_range(-by..=by));
                continue;
            }
            let change = [colour::brightness, colour::contrast, colour::saturation][at];
            change(image, rng.random_range((1.0 - by).max(0.0)..=1.0 + by));
        }
    }
}

impl std::str::FromStr for ColorJitter {
    type Err = String;

    fn from_str(text: &str) -> Result<ColorJitter, String> {
        let number = |word: &str| word.trim().parse().map_err(|_| format!("{word:?} is not a number"));
        ColorJitter::of_values(&text.split(',').map(number).collect::<Result<Vec<f64>, String>>()?)
    }
}

impl fmt::Display for ColorJitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [b, c, s, h] = self.values();
        match h == 0.0 && b == c && c == s {
            true => write!(f, "{b}"),
            false => write!(f, "{b},{c},{s},{h}"),
        }
    }
}

impl Serialize for ColorJitter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ColorJitter {
    /// A number, or a list of three or four.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ColorJitter, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or a list of numbers, as [0.4, 0.4, 0.4, 0.1]")]
        enum Written {
            One(f64),
            List(Vec<f64>),
        }
        let values = match Written::deserialize(deserializer)? {
            Written::One(all) => vec![all],
            Written::List(values) => values,
        };
        ColorJitter::of_values(&values).map_err(D::Error::custom)
    }
}
