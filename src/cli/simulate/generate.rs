//! Plays the demand model: contents that arrive and fade, a day that rises and falls, devices that come
//! and go. Every play of one seed is the same, and no more than a day of it is ever in memory.

use std::f64::consts::{LN_2, TAU};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    demand::{Demand, Event, Request, SimulateError},
    model::{Jump, Model},
};

const DAY: f64 = 86_400.0;
const HOUR: f64 = 3_600.0;
/// Ages of the first contents when nothing new arrives.
const AGE_DAYS_WITHOUT_ARRIVALS: f64 = 30.0;

pub struct Generated {
    model: Model,
    seed: u64,
    contents: Vec<Content>,
    sizes: Vec<u64>,
    jumps: Vec<(u32, Jump)>,
    /// How far the day's curve swings about its mean of 1.
    swing: f64,
}

struct Content {
    arrives_at: f64,
    half_life_seconds: f64,
    /// When it is new, in the day's mean.
    requests_per_second: f64,
}

impl Generated {
    pub fn new(model: Model, seed: u64) -> Generated {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut contents, mut sizes) = (Vec::new(), Vec::new());
        let (first, per_day) = (model.catalogue.contents, model.catalogue.arrivals_per_day);
        let oldest = match per_day > 0.0 {
            true => f64::from(first) / per_day,
            false => AGE_DAYS_WITHOUT_ARRIVALS,
        };
        for _ in 0..first {
            let arrives_at = -rng.random::<f64>() * oldest * DAY;
            contents.push(Content::draw(&model, arrives_at, &mut rng));
            sizes.push(draw_size(&model, &mut rng));
        }
        let weight: f64 = contents.iter().map(|c| c.rate(0.0, model.decay.floor)).sum();
        let end = f64::from(model.days) * DAY;
        let mut arrives_at = 0.0;
        loop {
            // Without arrivals the first gap is without end.
            arrives_at += -(1.0 - rng.random::<f64>()).ln().min(-1e-12) / per_day * DAY;
            if arrives_at >= end {
                break;
            }
            contents.push(Content::draw(&model, arrives_at, &mut rng));
            sizes.push(draw_size(&model, &mut rng));
        }
        for content in &mut contents {
            content.requests_per_second *= model.demand.requests_per_day / DAY / weight;
        }
        let jumps = draw_jumps(&model, &contents, &mut rng);
        let ratio = model.demand.daily_peak_to_trough;
        let swing = (ratio - 1.0) / (ratio + 1.0);
        Generated { model, seed, contents, sizes, jumps, swing }
    }

    fn curve(&self, at: f64) -> f64 {
        1.0 + self.swing * (TAU * (at - self.model.demand.peak_hour * HOUR) / DAY).cos()
    }

    fn day(&self, day: u32, rng: &mut StdRng) -> Vec<(f64, Event)> {
        let (start, end) = (f64::from(day) * DAY, f64::from(day + 1) * DAY);
        let peak = 1.0 + self.swing;
        let mut events = Vec::new();
        for (index, content) in self.contents.iter().enumerate() {
            if content.arrives_at >= end {
                continue;
            }
            let from = content.arrives_at.max(start);
            let request =
                Event::Request(Request { content: index as u32, bytes: self.sizes[index] });
            let floor = self.model.decay.floor * content.requests_per_second;
            for _ in 0..poisson(floor * peak * (end - from), rng) {
                self.keep(from + rng.random::<f64>() * (end - from), request, &mut events, rng);
            }
            // The fading part, from `from` to `end`; drawn by its distribution's inverse.
            let fading = (1.0 - self.model.decay.floor) * content.requests_per_second;
            let (half_lives, life) = (content.half_life_seconds, content.half_life_seconds / LN_2);
            let now = fading * (-(from - content.arrives_at) / half_lives * LN_2).exp();
            let gone = -(-(end - from) / life).exp_m1();
            for _ in 0..poisson(now * life * gone * peak, rng) {
                let at = from - life * (-rng.random::<f64>() * gone).ln_1p();
                self.keep(at.min(end), request, &mut events, rng);
            }
        }
        for (content, jump) in &self.jumps {
            self.jump(*content, jump, start..end, &mut events, rng);
        }
        events
    }

    fn jump(
        &self,
        content: u32,
        jump: &Jump,
        day: std::ops::Range<f64>,
        events: &mut Vec<(f64, Event)>,
        rng: &mut StdRng,
    ) {
        let begins = jump.at_hour * HOUR;
        let from = begins.max(day.start);
        let until = (begins + jump.lasts_hours * HOUR).min(day.end);
        let rate = self.contents[content as usize].rate(begins, self.model.decay.floor);
        let more = rate * (jump.factor - 1.0) * (until - from).max(0.0);
        let request = Request { content, bytes: self.sizes[content as usize] };
        for _ in 0..poisson(more * (1.0 + self.swing), rng) {
            let at = from + rng.random::<f64>() * (until - from);
            self.keep(at, Event::Request(request), events, rng);
        }
    }

    /// Drawn for the evening's peak, and kept as often as the hour says.
    fn keep(&self, at: f64, event: Event, events: &mut Vec<(f64, Event)>, rng: &mut StdRng) {
        if rng.random::<f64>() * (1.0 + self.swing) < self.curve(at) {
            events.push((at, event));
        }
    }
}

impl Content {
    fn draw(model: &Model, arrives_at: f64, rng: &mut StdRng) -> Content {
        let rank = 1.0 + (rng.random::<f64>() * f64::from(model.catalogue.contents)).floor();
        let decay = &model.decay;
        let hours = log_uniform(decay.half_life_hours_min, decay.half_life_hours_max, rng);
        Content {
            arrives_at,
            half_life_seconds: hours * HOUR,
            requests_per_second: rank.powf(-model.catalogue.zipf),
        }
    }

    fn rate(&self, at: f64, floor: f64) -> f64 {
        let age = (at - self.arrives_at).max(0.0);
        let left = (-age / self.half_life_seconds * LN_2).exp();
        self.requests_per_second * (floor + (1.0 - floor) * left)
    }
}

fn draw_size(model: &Model, rng: &mut StdRng) -> u64 {
    let sizes = &model.sizes;
    let (min, max) = match rng.random::<f64>() < sizes.video_share {
        true => (sizes.video_bytes_min, sizes.video_bytes_max),
        false => (sizes.download_bytes_min, sizes.download_bytes_max),
    };
    log_uniform(min as f64, max as f64, rng) as u64
}

/// Of those that are there, one of the middle third by demand.
fn draw_jumps(model: &Model, contents: &[Content], rng: &mut StdRng) -> Vec<(u32, Jump)> {
    let draw = |jump: &Jump| {
        let (at, floor) = (jump.at_hour * HOUR, model.decay.floor);
        let there = (0..contents.len()).filter(|i| contents[*i].arrives_at <= at);
        let mut there: Vec<(f64, usize)> =
            there.map(|i| (contents[i].rate(at, floor), i)).collect();
        there.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let position = (1.0 + rng.random::<f64>()) / 3.0 * there.len() as f64;
        there.get(position as usize).map(|(_, index)| (*index as u32, jump.clone()))
    };
    model.jumps.iter().filter_map(draw).collect()
}

fn log_uniform(min: f64, max: f64, rng: &mut StdRng) -> f64 {
    min * (max / min).powf(rng.random::<f64>())
}

/// By multiplication of uniforms (Knuth) where that is short, else by the normal distribution.
fn poisson(mean: f64, rng: &mut StdRng) -> u64 {
    if mean <= 0.0 {
        return 0;
    }
    if mean > 50.0 {
        let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        let normal = (-2.0 * u.ln()).sqrt() * (TAU * v).cos();
        return (mean + mean.sqrt() * normal + 0.5).max(0.0) as u64;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), rng.random::<f64>(), 0);
    while product > limit {
        product *= rng.random::<f64>();
        count += 1;
    }
    count
}

/// One device's comings and goings.
struct Presence {
    online: bool,
    changes_at: f64,
}

impl Presence {
    fn draw(model: &Model, rng: &mut StdRng) -> Presence {
        let online = rng.random::<f64>() < model.devices.online_share;
        let mut presence = Presence { online: !online, changes_at: 0.0 };
        presence.change(model, rng);
        presence
    }

    fn change(&mut self, model: &Model, rng: &mut StdRng) {
        let devices = &model.devices;
        self.online = !self.online;
        let share = devices.online_share;
        let hours = match self.online {
            true if share >= 1.0 => f64::INFINITY,
            true => devices.session_hours,
            false => devices.session_hours * (1.0 - share) / share,
        };
        self.changes_at += -(1.0 - rng.random::<f64>()).ln().min(-1e-9) * hours * HOUR;
    }
}

impl Demand for Generated {
    fn catalogue(&self) -> &[u64] {
        &self.sizes
    }

    fn play(
        &self,
        devices: u32,
        each: &mut dyn FnMut(f64, Event) -> Result<(), SimulateError>,
    ) -> Result<(), SimulateError> {
        // Requests do not depend on how many devices there are.
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0x6465_6d61_6e64);
        let mut device_rng = StdRng::seed_from_u64(self.seed ^ 0x6465_7669_6365);
        let mut presences: Vec<Presence> =
            (0..devices).map(|_| Presence::draw(&self.model, &mut device_rng)).collect();
        for (device, presence) in presences.iter().enumerate() {
            each(0.0, Event::Presence { device: device as u32, online: presence.online })?;
        }
        for day in 0..self.model.days {
            let mut events = self.day(day, &mut rng);
            let end = f64::from(day + 1) * DAY;
            for (device, presence) in presences.iter_mut().enumerate() {
                while presence.changes_at < end {
                    let at = presence.changes_at;
                    presence.change(&self.model, &mut device_rng);
                    let (device, online) = (device as u32, presence.online);
                    events.push((at, Event::Presence { device, online }));
                }
            }
            events.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (at, event) in events {
                each(at, event)?;
            }
        }
        Ok(())
    }
}
