//! `sessions.json`: which processes a run went on in, with which command, program and adapter, and what they took.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::atomic::atomic_write;
use crate::error::{Error, Result, quote};
use crate::gpu::Gpu;
use crate::train::records::Session;
use crate::version::VERSION;

/// The sessions of a run under way; the last of them is this process.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    all: Vec<Session>,
    began: Instant,
}

impl Sessions {
    /// Of a run that has taken `steps` steps, in this process since `began`; `goes_on` keeps those before. Writes nothing yet.
    ///
    /// # Errors
    /// As [`read`].
    pub(super) fn open(
        path: PathBuf,
        goes_on: bool,
        began: Instant,
        steps: u64,
        gpu: &Gpu,
        (memory, ranks): (u64, usize),
    ) -> Result<Sessions> {
        let mut all = if goes_on { read(&path)? } else { Vec::new() };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        all.push(Session {
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            version: VERSION.into(),
            started: utc(now.saturating_sub(began.elapsed()).as_secs()),
            steps: [steps; 2],
            memory,
            ranks,
            adapter: gpu.info.name.clone(),
            driver: [gpu.info.driver.as_str(), &gpu.info.driver_info].join(" ").trim().to_string(),
            backend: format!("{:?}", gpu.info.backend),
            ..Session::default()
        });
        Ok(Sessions { path, all, began })
    }

    /// Writes the file, of a run that has taken `steps` steps at `rate` images per second (NaN as long as no one knows), and waited so long
    /// for other ranks.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn write(&mut self, steps: u64, rate: f64, exchange: Option<Duration>) -> Result<()> {
        if let Some(own) = self.all.last_mut() {
            own.seconds = self.began.elapsed().as_secs_f64();
            own.steps[1] = steps;
            own.exchange_seconds = exchange.map(|time| time.as_secs_f64());
            own.images_per_second = rate.is_finite().then_some(rate);
        }
        let text = serde_json::to_string_pretty(&self.all).expect("plain values");
        atomic_write(&self.path, (text + "\n").as_bytes())
    }
}

/// The sessions in the file at `path`; none without such a file.
///
/// # Errors
/// A file that can't be read or understood.
pub fn read(path: &Path) -> Result<Vec<Session>> {
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read", e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::data(path, format!("can't be understood: {}", quote(&e.to_string()))))
}

/// `seconds` since the beginning of 1970, as date and time in UTC.
fn utc(seconds: u64) -> String {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut day, mut year) = (seconds / 86_400, 1970);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let days = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= days[month] {
        day -= days[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::utc;

    /// As Python's `datetime.fromtimestamp(n, timezone.utc)` has them.
    #[test]
    fn seconds_are_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, date) in cases {
            assert_eq!(utc(seconds), date);
        }
    }
}
