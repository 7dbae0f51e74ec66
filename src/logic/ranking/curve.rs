//! The day's curve: how much more is asked for in the evening than at night, learned from the demand
//! itself, so that a request at night counts for more.

const HOURS: usize = 24;
/// Before two days were seen nothing is corrected: an hour of a first day may be a growing fleet.
const DAYS_SEEN_MIN: u32 = 2;
/// What yesterday's hour counts against those before it.
const NEW_SHARE: f64 = 0.3;
/// A curve steeper than this is a gap in the data.
const CORRECTION_MAX: f64 = 4.0;

#[derive(Clone, Debug, Default)]
pub struct DailyCurve {
    usual: [f64; HOURS],
    days_seen: u32,
    hour: u64,
    in_hour: f64,
}

impl DailyCurve {
    /// What a request at this moment counts for.
    pub fn observe(&mut self, at: f64) -> f64 {
        let hour = (at / 3600.0).max(0.0) as u64;
        if hour != self.hour {
            self.close_hours(hour);
        }
        self.in_hour += 1.0;
        self.correction(at)
    }

    fn close_hours(&mut self, hour: u64) {
        // After a gap of more than a day the hours in between say nothing more.
        let closed = (hour - self.hour.min(hour)).min(HOURS as u64);
        for n in 0..closed {
            let slot = ((self.hour + n) % HOURS as u64) as usize;
            let seen = if n == 0 { self.in_hour } else { 0.0 };
            let share = if self.days_seen == 0 { 1.0 } else { NEW_SHARE };
            self.usual[slot] += share * (seen - self.usual[slot]);
            if slot == HOURS - 1 {
                self.days_seen += 1;
            }
        }
        self.hour = hour;
        self.in_hour = 0.0;
    }

    /// Between the middles of two hours the curve is a straight line.
    fn correction(&self, at: f64) -> f64 {
        if self.days_seen < DAYS_SEEN_MIN {
            return 1.0;
        }
        let mean = self.usual.iter().sum::<f64>() / HOURS as f64;
        let position = at / 3600.0 - 0.5 + HOURS as f64;
        let slot = position.floor();
        let (before, after) = (slot as u64 % HOURS as u64, (slot as u64 + 1) % HOURS as u64);
        let share = position - slot;
        let usual =
            self.usual[before as usize] * (1.0 - share) + self.usual[after as usize] * share;
        (mean / usual.max(f64::MIN_POSITIVE)).clamp(1.0 / CORRECTION_MAX, CORRECTION_MAX)
    }
}
