//! Why the allowance is what it is. One value for each rule; the page has a sentence for each in every
//! language, and `Display` is the English one for logs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The rule in force: of all that apply, the one that allows least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing but the owner's own limit.
    Limit,
    Paused,
    /// This hour of the week is off.
    ScheduleOff,
    /// This hour of the week has a part of the limit.
    ScheduleReduced,
    /// There is a schedule, but nobody knows the hour yet.
    ClockUnset,
    DailyCap,
    MonthlyCap,
    /// Close to the most that may leave for each byte that came.
    AsymmetrySlowed,
    AsymmetryStopped,
    /// The line carries far less than it did.
    Throttled,
    /// Auto mode: a little below what the line carries.
    AutoLine,
    /// Auto mode: the household uses the line.
    AutoHousehold,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Limit => "the owner's limit is all that holds",
            Reason::Paused => "the owner has paused serving",
            Reason::ScheduleOff => "the schedule has this hour off",
            Reason::ScheduleReduced => "the schedule has this hour at a part of the limit",
            Reason::ClockUnset => {
                "the time is not known yet, so the schedule's most careful hour holds"
            }
            Reason::DailyCap => "today's bytes are used up; it goes on at 00:00 UTC",
            Reason::MonthlyCap => "this month's bytes are used up; it goes on with the next month",
            Reason::AsymmetrySlowed => "egress nears the ratio to ingress that the owner has set",
            Reason::AsymmetryStopped => {
                "egress has reached the ratio to ingress that the owner has set"
            }
            Reason::AutoLine => "auto mode stays a little below what the line carries",
            Reason::AutoHousehold => "auto mode gives way: the household is using the line",
            Reason::Throttled => {
                "the line carries far less than before, as if the provider throttled it; it is tried again later"
            }
        })
    }
}
