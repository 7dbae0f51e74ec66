//! The tracker: who is in which swarm (BEP 3, 7, 23, 24, 48). In memory, bounded, and only for
//! contents on the hot list; a restart costs one announce interval. No sockets and no clock in here.

mod answer;
mod neighbours;
mod query;
mod swarm;

pub use answer::{announce_answer, failure, scrape_answer};
pub use query::{Announce, Event, QueryError, parse_announce, parse_scrape};
pub use swarm::{Peers, SwarmSettings, Swarms};

/// 20 bytes, as the peer chose them (BEP 20).
pub type PeerId = [u8; 20];
