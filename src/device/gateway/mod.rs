//! Auto mode's senses: measures, while peers are served, how long datagrams take to the first routers
//! beyond the home's (or to the hub) and what the WAN interface of a router carries, and tells the
//! serving engine what may leave. The decisions are `logic::governor::delay`'s; nothing here knows
//! peers, contents or the owner.
//!
//! It has a thread of its own: round trips must not wait for a busy event loop. While nobody is served
//! the thread sleeps without a timeout and holds no probe's socket.

mod choice;
mod icmp;
mod network;
mod prober;
mod search;
mod socket;
mod watch;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use mio::Waker;
use parking_lot::Mutex;

use crate::logic::governor::{Allowance, delay};
pub use network::{InterfaceBytes, InterfaceCounters};

/// Which interface is the home's way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WanInterface {
    /// That of the default route, if this machine is the home's router.
    Find,
    Named(String),
    None,
}

impl WanInterface {
    /// Its counters, if there is such an interface and it can be read.
    pub fn open(&self) -> Option<InterfaceCounters> {
        self.open_by(&network::Routes::read())
    }

    fn open_by(&self, routes: &network::Routes) -> Option<InterfaceCounters> {
        let name = match self {
            WanInterface::Find => network::own_wan_interface(routes)?,
            WanInterface::Named(name) => name.clone(),
            WanInterface::None => return None,
        };
        let opened = InterfaceCounters::open(&name);
        opened
            .inspect_err(|error| {
                tracing::warn!("the counters of interface {name} cannot be read: {error}")
            })
            .ok()
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub wan_interface: WanInterface,
    /// What may leave while nothing can be measured.
    pub unmeasured_bytes_per_second: u64,
}

/// Whom to probe when no router on the way answers, and where the way leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// The hub's; without one the way to a served peer is taken.
    pub towards: Option<IpAddr>,
    pub reflector: Option<SocketAddr>,
    /// Answers a SYN: the hub's web server, say.
    pub tcp: Option<SocketAddr>,
}

/// The serving side, as auto mode sees it.
pub trait Serving: Send {
    fn served(&self) -> Served;
    fn set_allowance(&self, allowance: Allowance);
}

/// Counts at one moment; the totals are since the start and in bytes on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    pub measured_at: Instant,
    pub acknowledged_bytes_total: u64,
    /// What has left for the wire, acknowledged or not.
    pub sent_bytes_total: u64,
    pub peers_want_more: bool,
    pub peers_unchoked: u32,
    /// One of those that are served, for the way to it.
    pub peer: Option<IpAddr>,
}

/// What auto mode has found out, for people and for the other rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// What it allows now, other rules aside; `None` while it cannot measure.
    pub bytes_per_second: Option<u64>,
    pub line_bytes_per_second: Option<u64>,
    /// It makes room for the household, or looks whether it still has to.
    pub gives_way: bool,
    /// What is probed.
    pub target: Option<String>,
    /// Why it cannot measure, and what to do.
    pub problem: Option<String>,
}

enum Order {
    Ceiling(Allowance),
    Destinations(Destinations),
    Stop,
}

/// A handle to the thread. Dropping it stops the thread.
pub struct Gateway {
    orders: mpsc::Sender<Order>,
    waker: Arc<Waker>,
    view: Arc<Mutex<View>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gateway {
    /// Allows nothing until it is told a ceiling.
    pub fn start(settings: Settings, serving: impl Serving + 'static) -> io::Result<Gateway> {
        let view = Arc::new(Mutex::new(View::default()));
        let (orders, inbox) = mpsc::channel();
        let (watch, waker) = watch::Watch::new(settings, serving, inbox, view.clone())?;
        let thread =
            thread::Builder::new().name("larder-gateway".into()).spawn(move || watch.run())?;
        Ok(Gateway { orders, waker: Arc::new(waker), view, thread: Some(thread) })
    }

    /// What all other rules allow. Acts at once.
    pub fn set_ceiling(&self, ceiling: Allowance) {
        self.order(Order::Ceiling(ceiling));
    }

    pub fn set_destinations(&self, destinations: Destinations) {
        self.order(Order::Destinations(destinations));
    }

    /// Serving begins: for a thread that waits for it.
    pub fn alarm(&self) -> impl Fn() + Send + 'static {
        let waker = self.waker.clone();
        move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "the thread of auto mode cannot be woken");
            }
        }
    }

    pub fn view(&self) -> View {
        self.view.lock().clone()
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::error!("the thread of auto mode has ended");
        } else if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the thread of auto mode cannot be woken");
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.order(Order::Stop);
        if thread.join().is_err() {
            tracing::error!("the thread of auto mode ended with a panic");
        }
    }
}

impl From<delay::Snapshot> for View {
    fn from(snapshot: delay::Snapshot) -> View {
        View {
            bytes_per_second: Some(snapshot.bytes_per_second),
            line_bytes_per_second: snapshot.line_bytes_per_second,
            gives_way: snapshot.gives_way,
            ..View::default()
        }
    }
}
