//! The limits of the account whose login the server uses, as the upstream reports them beside its responses.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::error::Error;

/// Maximum number of remembered windows. An account has two for each of a few limits.
const MAX_WINDOWS: usize = 16;

/// The limits of an account, merged from its readings.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountLimits {
    /// Name of the plan. Empty if unknown.
    pub plan: String,
    /// The windows, those of the newest reading last.
    pub windows: Vec<LimitWindow>,
    /// Credits beside the plan, if the upstream reports them.
    pub credits: Option<Credits>,
    /// Time of the newest reading.
    pub read_at: SystemTime,
}

/// The use of a limit within its window of time.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitWindow {
    /// Codex's name of the limit, such as `codex`.
    pub limit_id: String,
    /// The used part, in percent.
    pub used_percent: f64,
    /// Length of the window, if known.
    pub duration: Option<Duration>,
    /// Time at which the window begins again, if known.
    pub resets_at: Option<SystemTime>,
}

/// Credits that an account may use beyond its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credits {
    /// Whether the account has credits.
    pub has_credits: bool,
    /// Whether the credits are unlimited.
    pub unlimited: bool,
    /// The balance as the upstream writes it. Empty if unknown.
    pub balance: String,
}

/// One report of the upstream, which may leave out any part.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct LimitsReading {
    pub(crate) plan: String,
    pub(crate) windows: Vec<LimitWindow>,
    pub(crate) credits: Option<Credits>,
}

/// The newest limits of an account. The workers with one login share one value.
#[derive(Debug, Default)]
pub(crate) struct RateLimits(Mutex<Option<Arc<AccountLimits>>>);

impl RateLimits {
    /// Returns the limits, or `None` before the first reading.
    pub(crate) fn current(&self) -> Option<Arc<AccountLimits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Merges a reading. A part that the reading leaves out keeps its former value, because Codex also reports
    /// responses without any limits (0.169). A reading of another plan replaces everything.
    pub(crate) fn update(&self, reading: LimitsReading, read_at: SystemTime) {
        if reading == LimitsReading::default() {
            return;
        }
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other_plan = |former: &&Arc<AccountLimits>| {
            !reading.plan.is_empty() && !former.plan.is_empty() && reading.plan != former.plan
        };
        let former = current.as_ref().filter(|former| !is_other_plan(former));
        let mut windows = former.map(|former| former.windows.clone()).unwrap_or_default();
        windows.retain(|old| reading.windows.iter().all(|new| new.limit_id != old.limit_id));
        windows.extend(reading.windows);
        windows.drain(..windows.len().saturating_sub(MAX_WINDOWS));
        let plan = match (reading.plan, former) {
            (plan, Some(former)) if plan.is_empty() => former.plan.clone(),
            (plan, _) => plan,
        };
        let credits = reading.credits.or_else(|| former?.credits.clone());
        *current = Some(Arc::new(AccountLimits { plan, windows, credits, read_at }));
    }

    /// Adds the time of the reset to the error of a reached usage limit, if a reading contains it. Codex's own text has
    /// the time without zone, and in some cases not at all.
    pub(crate) fn explain(&self, error: Error, now: SystemTime) -> Error {
        let Error::UsageLimit { .. } = &error else { return error };
        let Some(resets_at) = self.current().and_then(|limits| limits.reset_of_exhausted(now)) else {
            return error;
        };
        let message = format!(
            "The usage limit of the ChatGPT plan is reached. It resets at {}.",
            utc_minute(resets_at)
        );
        Error::UsageLimit { message, retry_after: resets_at.duration_since(now).ok() }
    }
}

impl AccountLimits {
    /// Returns the time at which no window is exhausted any more. The windows of the newest reading have precedence,
    /// because it belongs to the response that reached the limit.
    fn reset_of_exhausted(&self, now: SystemTime) -> Option<SystemTime> {
        let newest = &self.windows.last()?.limit_id;
        let exhausted = |window: &&LimitWindow| {
            window.used_percent >= 100.0 && window.resets_at.is_some_and(|resets_at| resets_at > now)
        };
        let last_reset = |of_newest: bool| {
            let windows = self.windows.iter().filter(|window| (window.limit_id == *newest) == of_newest);
            windows.filter(exhausted).filter_map(|window| window.resets_at).max()
        };
        last_reset(true).or_else(|| last_reset(false))
    }
}

/// Formats a time as `2026-11-26 02:30 UTC`. Rounds up, so that the limit is over at the displayed time.
fn utc_minute(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds.div_ceil(60).saturating_mul(60)).unwrap_or_default();
    let text = prost_types::Timestamp { seconds, nanos: 0 }.to_string();
    let minute: String = text.chars().take("2026-11-26T02:30".len()).collect();
    format!("{} UTC", minute.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-26 00:00 UTC.
    const MIDNIGHT: u64 = 1_795_651_200;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(MIDNIGHT + seconds)
    }

    fn window(limit_id: &str, used_percent: f64, resets: u64) -> LimitWindow {
        let duration = Some(Duration::from_secs(18_000));
        LimitWindow { limit_id: limit_id.to_owned(), used_percent, duration, resets_at: Some(at(resets)) }
    }

    fn reading(plan: &str, windows: Vec<LimitWindow>) -> LimitsReading {
        LimitsReading { plan: plan.to_owned(), windows, credits: None }
    }

    fn usage_limit() -> Error {
        Error::UsageLimit { message: "You've hit your usage limit.".to_owned(), retry_after: None }
    }

    #[test]
    fn update_without_a_part_keeps_the_former_value() {
        let limits = RateLimits::default();
        limits.update(LimitsReading::default(), at(0));
        assert_eq!(limits.current(), None, "a response without limits is no reading");
        limits.update(reading("pro", vec![window("codex", 42.0, 60), window("codex", 13.0, 90)]), at(1));
        let credits = Credits { has_credits: true, unlimited: false, balance: "12.50".to_owned() };
        limits.update(LimitsReading { credits: Some(credits.clone()), ..LimitsReading::default() }, at(2));
        limits.update(LimitsReading::default(), at(3));
        let current = limits.current().unwrap();
        assert_eq!((current.plan.as_str(), current.windows.len(), current.read_at), ("pro", 2, at(2)));
        assert_eq!(current.credits, Some(credits));
        limits.update(reading("", vec![window("codex", 43.0, 60)]), at(4));
        let current = limits.current().unwrap();
        assert_eq!((current.plan.as_str(), &current.windows), ("pro", &vec![window("codex", 43.0, 60)]));
        limits.update(reading("plus", vec![]), at(5));
        let current = limits.current().unwrap();
        assert_eq!((current.plan.as_str(), current.windows.len(), &current.credits), ("plus", 0, &None));
    }

    #[test]
    fn update_with_ever_new_limits_is_bounded() {
        let limits = RateLimits::default();
        for number in 0..100 {
            limits.update(reading("", vec![window(&number.to_string(), 1.0, 1)]), at(0));
        }
        let current = limits.current().unwrap();
        assert_eq!(current.windows.len(), MAX_WINDOWS);
        assert_eq!(current.windows.last().unwrap().limit_id, "99");
    }

    #[test]
    fn explain_names_the_reset_in_utc_and_the_delay() {
        let limits = RateLimits::default();
        limits.update(
            reading("plus", vec![window("codex", 100.0, 9_000), window("codex", 13.0, 90_000)]),
            at(0),
        );
        let Error::UsageLimit { message, retry_after } = limits.explain(usage_limit(), at(1_000)) else {
            panic!("the kind of the error changed");
        };
        assert_eq!(
            message,
            "The usage limit of the ChatGPT plan is reached. It resets at 2026-11-26 02:30 UTC."
        );
        assert_eq!(retry_after, Some(Duration::from_secs(8_000)));
        // Both windows must begin again.
        limits.update(
            reading("plus", vec![window("codex", 100.0, 9_000), window("codex", 100.0, 90_000)]),
            at(0),
        );
        let explained = limits.explain(usage_limit(), at(0)).to_string();
        assert!(explained.contains("2026-11-27 01:00 UTC"), "{explained}");
        // The limit of another model is not the cause.
        limits.update(reading("plus", vec![window("other", 100.0, 61)]), at(0));
        let explained = limits.explain(usage_limit(), at(0)).to_string();
        assert!(explained.contains("2026-11-26 00:02 UTC"), "{explained}");
    }

    #[test]
    fn explain_without_an_exhausted_window_keeps_the_error() {
        let limits = RateLimits::default();
        let kept = |limits: &RateLimits, error: Error| limits.explain(error, at(0)).to_string();
        assert_eq!(kept(&limits, usage_limit()), usage_limit().to_string());
        limits.update(reading("plus", vec![window("codex", 99.0, 9_000)]), at(0));
        assert_eq!(kept(&limits, usage_limit()), usage_limit().to_string());
        limits.update(reading("plus", vec![window("codex", 100.0, 0)]), at(0));
        assert_eq!(kept(&limits, usage_limit()), usage_limit().to_string(), "the reset is over");
        limits.update(reading("plus", vec![window("codex", 100.0, 9_000)]), at(0));
        assert_eq!(kept(&limits, Error::Draining), Error::Draining.to_string());
    }
}
