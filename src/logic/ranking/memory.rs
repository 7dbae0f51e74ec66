//! How demand remembers: what is kept of each content's requests, and how much demand such requests
//! were followed by so far. Knows nothing of disks, devices or scores.

/// Each remembers eight times longer than the one before: from a quarter of a minute, in which a
/// jump shows, to the 45 days for which a film is asked for. None of it is tuned to a catalogue: how
/// much each says is learned.
pub const KERNELS: usize = 7;
const LONGEST_SECONDS: f64 = 15.0 * 262_144.0;
pub const SECONDS: [f64; KERNELS] =
    [15.0, 120.0, 960.0, 7_680.0, 61_440.0, 491_520.0, LONGEST_SECONDS];

/// Once, twice, up to 4, 8, 16 times, and more: what has been asked for once is asked for again less
/// often than in proportion.
const CLASSES: usize = 6;
/// What is believed before anything was seen, and after how many requests half of it is forgotten.
const PRIOR_OFFSPRING: f64 = 0.08;
const PRIOR_REQUESTS: f64 = 4.0;
const FORGET_AFTER_REQUESTS: u32 = 400_000;
/// What is learned is put to use this often.
const LEARN_EVERY_REQUESTS: u32 = 128;
/// Requests within a horizon that nothing before them explains.
const UNEXPLAINED_PER_HORIZON: f64 = 0.02;

/// What is kept of one content: 48 bytes, however often it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trail {
    /// Requests, faded as each kernel forgets, when the last one came.
    counts: [f32; KERNELS],
    requests: u32,
    last_at: f64,
}

/// What part of each kernel's count is left after a time.
fn fading(seconds: f64) -> [f64; KERNELS] {
    let mut left = [0.0; KERNELS];
    let mut factor = (-seconds.max(0.0) / LONGEST_SECONDS).exp();
    for slot in left.iter_mut().rev() {
        *slot = factor;
        // Eight times shorter: the eighth power.
        factor *= factor;
        factor *= factor;
        factor *= factor;
    }
    left
}

impl Trail {
    pub fn new(at: f64) -> Trail {
        Trail { counts: [0.0; KERNELS], requests: 0, last_at: at }
    }

    fn class(&self) -> usize {
        let bits = u32::BITS - self.requests.saturating_sub(1).leading_zeros();
        (bits as usize).min(CLASSES - 1)
    }

    pub fn last_at(&self) -> f64 {
        self.last_at
    }

    /// What is left of the counts.
    fn faded(&self, at: f64) -> [f64; KERNELS] {
        let mut left = fading(at - self.last_at);
        for (left, count) in left.iter_mut().zip(self.counts) {
            *left *= f64::from(count);
        }
        left
    }
}

/// For each kernel and class, how many requests one request is followed by: a Hawkes process with
/// exponential kernels, whose weights are learned by expectation and maximisation as requests come.
/// Only what follows within the horizon counts, since that is what is asked of it.
#[derive(Clone, Debug)]
pub struct Memory {
    offspring: [[f64; KERNELS]; CLASSES],
    /// Requests that are put down to the kernel, and the counts that had a chance to bring them.
    brought: [[f64; KERNELS]; CLASSES],
    chances: [[f64; KERNELS]; CLASSES],
    since_learned: u32,
    since_forgotten: u32,
    horizon_seconds: f64,
    /// What is left of each kernel's count after the horizon.
    beyond: [f64; KERNELS],
}

impl Memory {
    pub fn new(horizon_seconds: f64) -> Memory {
        Memory {
            offspring: [[PRIOR_OFFSPRING; KERNELS]; CLASSES],
            brought: [[0.0; KERNELS]; CLASSES],
            chances: [[0.0; KERNELS]; CLASSES],
            since_learned: 0,
            since_forgotten: 0,
            horizon_seconds,
            beyond: fading(horizon_seconds),
        }
    }

    pub fn horizon_seconds(&self) -> f64 {
        self.horizon_seconds
    }

    pub fn set_horizon(&mut self, seconds: f64) {
        self.horizon_seconds = seconds;
        self.beyond = fading(seconds);
    }

    /// `weight` is what the request counts for: less in the evening, when everybody asks.
    pub fn observe(&mut self, trail: &mut Trail, weight: f64, at: f64) {
        let left = trail.faded(at);
        if trail.requests > 0 && at - trail.last_at < self.horizon_seconds {
            self.attribute(trail, &left);
        }
        for (count, left) in trail.counts.iter_mut().zip(left) {
            *count = (left + weight) as f32;
        }
        trail.requests = trail.requests.saturating_add(1);
        trail.last_at = trail.last_at.max(at);
        let class = trail.class();
        for k in 0..KERNELS {
            self.chances[class][k] += f64::from(trail.counts[k]) * (1.0 - self.beyond[k]);
        }
        self.learn();
    }

    /// A request came before the horizon: to which kernels is it due, and which part of their chance
    /// was not used?
    fn attribute(&mut self, trail: &Trail, left: &[f64; KERNELS]) {
        let class = trail.class();
        let weights = &self.offspring[class];
        let rate = |k: usize| weights[k] * left[k] / SECONDS[k];
        let unexplained = UNEXPLAINED_PER_HORIZON / self.horizon_seconds;
        let total = (0..KERNELS).map(rate).sum::<f64>() + unexplained;
        let shares: [f64; KERNELS] = std::array::from_fn(|k| rate(k) / total);
        for k in 0..KERNELS {
            self.brought[class][k] += shares[k];
            let unused = left[k] - f64::from(trail.counts[k]) * self.beyond[k];
            self.chances[class][k] = (self.chances[class][k] - unused).max(0.0);
        }
    }

    fn learn(&mut self) {
        self.since_learned += 1;
        self.since_forgotten += 1;
        if self.since_learned < LEARN_EVERY_REQUESTS {
            return;
        }
        self.since_learned = 0;
        let keep = if self.since_forgotten >= FORGET_AFTER_REQUESTS { 0.5 } else { 1.0 };
        if keep < 1.0 {
            self.since_forgotten = 0;
        }
        for class in 0..CLASSES {
            for k in 0..KERNELS {
                self.brought[class][k] *= keep;
                self.chances[class][k] *= keep;
                let brought = self.brought[class][k] + PRIOR_OFFSPRING * PRIOR_REQUESTS;
                self.offspring[class][k] = brought / (self.chances[class][k] + PRIOR_REQUESTS);
            }
        }
    }

    /// How many requests will come within the horizon.
    pub fn expected_requests(&self, trail: &Trail, at: f64) -> f64 {
        let (left, weights) = (trail.faded(at), &self.offspring[trail.class()]);
        (0..KERNELS).map(|k| weights[k] * left[k] * (1.0 - self.beyond[k])).sum()
    }

    /// How many a second come now. The shortest kernel is left out: a pair of requests is no crowd.
    pub fn requests_per_second(&self, trail: &Trail, at: f64) -> f64 {
        let (left, weights) = (trail.faded(at), &self.offspring[trail.class()]);
        (1..KERNELS).map(|k| weights[k] * left[k] / SECONDS[k]).sum()
    }
}
