//! What the parts of the device say to the daemon. Shapes only: nothing in here acts.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::{
    bookkeeping::Saved, disk::Settings, gateway::Destinations, serve::Servable, store::DiskTrouble,
    swarm::FillSource,
};
use crate::{
    api::{
        admin::{PauseRequest, RemovalRequest, Status},
        hub::Statement,
    },
    logic::{infohash::Infohash, node::Event, now::UnixSeconds, usage::UsageDelta},
};

/// What the device talks to the hub about; a success ends only the problem of its own topic. The
/// first problem in this order is the one to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Enrolment,
    List,
    Reports,
}

/// What reaches the daemon.
#[derive(Debug)]
pub enum Message {
    Event(Event),
    /// The hub answered (with its time, perhaps), or what went wrong.
    Contact(Topic, Result<Option<UnixSeconds>, String>),
    Servable(Servable),
    /// A tracker says who takes a content. What it says is only a hint.
    Named {
        infohash: Infohash,
        leechers: Vec<SocketAddr>,
    },
    PieceVerified {
        infohash: Infohash,
        piece: u32,
        source: FillSource,
        bytes: u64,
    },
    /// Why a fill does not run, by the owner's rules; `None` once it does.
    FillWaits {
        infohash: Infohash,
        sentence: Option<String>,
    },
    /// By the keeper.
    Found(Found),
    /// The disk was tried, and settings that waited for it were written.
    DiskTried {
        unwritten: Settings,
        result: Result<(), DiskTrouble>,
    },
    /// Counts are in the journal, or why they are not.
    Saved(Result<Saved, (Vec<UsageDelta>, String)>),
    /// And on the disk.
    Synced(Result<(), String>),
    Reported {
        reported_bytes: u64,
        pending: u64,
    },
    Settled(Statement),
    Owner(Wish, Answer),
    /// Where the hub and its reflector are, for auto mode.
    Destinations(Destinations),
}

/// What became of a content on disk.
#[derive(Debug)]
pub enum Found {
    /// A piece turned out bad, and is served no more; the piece map says so.
    Damaged { infohash: Infohash, bytes: u64 },
    /// That was all of it for now: it can be filled again.
    ToMend(Infohash),
    /// Its file is gone.
    Lost(Infohash),
    /// The disk does not give what it has; `None` when it does again.
    Unreadable(Option<DiskTrouble>),
}

/// What the owner wants, and where to answer.
#[derive(Debug)]
pub enum Wish {
    Limit(u64),
    Pause(PauseRequest),
    Removal(RemovalRequest),
}

pub type Answer = oneshot::Sender<Result<Status, String>>;
